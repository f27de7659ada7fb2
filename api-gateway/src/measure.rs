//! Requests by route and status, and how long they took.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::Method;
use tokio::time::Instant;

pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = known(request.method());
    // The template, never the path itself: a label must have few values.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    metrics::counter!(
        "chaski_http_requests_total",
        "route" => route.clone(), "method" => method, "status" => status
    )
    .increment(1);
    metrics::histogram!("chaski_http_request_seconds", "route" => route, "method" => method)
        .record(began.elapsed().as_secs_f64());
    response
}

/// A client may make methods up.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
