//! A device that calls over HTTP.

use crate::PATIENCE;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

/// Calls as one device.
pub struct Caller {
    client: reqwest::Client,
    base: String,
    bearer: String,
}

/// An answer: `body` is `null` where it is not JSON.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Value,
}

impl Caller {
    /// Calls the server at `base` with this token.
    ///
    /// # Panics
    /// Where the machine's HTTP set-up is broken.
    #[must_use]
    pub fn new(base: &str, bearer: String) -> Self {
        let client = reqwest::Client::builder().timeout(PATIENCE).build();
        Self { client: client.expect("a client"), base: base.into(), bearer }
    }

    /// A read.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None, None).await
    }

    /// A read that must show the write of this `Chaski-Token`.
    pub async fn get_seeing(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, None, Some(token)).await
    }

    /// A write.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string()), None).await
    }

    /// A change of a part.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, path, Some(body.to_string()), None).await
    }

    /// A write of the whole.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Some(body.to_string()), None).await
    }

    /// A removal.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None, None).await
    }

    /// A write of a body that may not be JSON.
    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.call(Method::POST, path, Some(body.to_owned()), None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        seen: Option<&str>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = request.bearer_auth(&self.bearer);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        if let Some(token) = seen {
            request = request.header("Chaski-Token", token);
        }
        let answer = request.send().await.expect("the server answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.expect("a whole answer");
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// All pages of a list, joined: `list` is the member with the items; `next` goes into `after`
    /// or, where that is the `direction`, `before`.
    ///
    /// # Panics
    /// Where a page is refused, or longer than asked.
    pub async fn pages(&self, path: &str, list: &str, direction: &str, limit: usize) -> Vec<Value> {
        let mut pages: Vec<Vec<Value>> = Vec::new();
        let mut from = String::new();
        loop {
            let answer = self.get(&format!("{path}?limit={limit}{from}")).await.expect(200);
            let page = answer[list].as_array().expect("a list").clone();
            assert!(page.len() <= limit, "{} on a page of {limit}", page.len());
            pages.push(page);
            match answer.get("next") {
                Some(next) => from = format!("&{direction}={}", next.as_str().expect("a string")),
                None => break,
            }
        }
        if direction == "before" {
            pages.reverse();
        }
        pages.concat()
    }
}

impl Answer {
    /// The body of an answer with this status.
    ///
    /// # Panics
    /// Where it has another one.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The code of a problem (RFC 9457) with this status.
    ///
    /// # Panics
    /// Where it is not one.
    #[track_caller]
    #[must_use]
    pub fn problem(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        self.body["code"].as_str().expect("a problem has a code").to_owned()
    }

    /// `Chaski-Token`.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    #[must_use]
    pub fn token(&self) -> String {
        self.headers["chaski-token"].to_str().expect("text").to_owned()
    }
}
