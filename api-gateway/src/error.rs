//! A refusal as HTTP: RFC 9457 `application/problem+json`.

use axum::response::{IntoResponse, Response};
use chaski_proto::{Problem, v1};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// What a handler answers where it does not do as asked.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Problem);

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    /// The present state, with a 409 of a contact or block.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'a v1::Connection>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Unknown"),
            status: status.as_u16(),
            detail: &problem.message,
            code: &problem.code,
            connection: problem.connection.as_ref(),
        };
        let body = serde_json::to_vec(&body).expect("texts, numbers and a state are JSON");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let again_later =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if again_later || problem.retry_after_ms.is_some() {
            let seconds = problem.retry_after_ms.unwrap_or(1000).div_ceil(1000).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl<P: Into<Problem>> From<P> for Refusal {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}
