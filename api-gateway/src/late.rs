//! What the public address answers with: 503 until the process is ready to serve, then the real
//! routes, for good. A load balancer and a client learn at once that they have come too early.
//!
//! Must not know: what a process waits for.

use crate::error::Refusal;
use axum::Router;
use chaski_proto::Problem;
use std::sync::{Arc, OnceLock};

/// Routes that come later. Clones share them.
#[derive(Clone, Debug)]
pub struct LateRouter {
    early: Router,
    open: Arc<OnceLock<Router>>,
}

impl Default for LateRouter {
    fn default() -> Self {
        Self { early: Router::new().fallback(not_ready), open: Arc::default() }
    }
}

impl From<Router> for LateRouter {
    fn from(router: Router) -> Self {
        let late = Self::default();
        late.open(router);
        late
    }
}

impl LateRouter {
    /// From now on these answer. Only the first ones count.
    pub fn open(&self, router: Router) {
        let _ = self.open.set(router);
    }

    /// What answers now.
    pub(crate) fn present(&self) -> Router {
        self.open.get().unwrap_or(&self.early).clone()
    }
}

async fn not_ready() -> Refusal {
    Problem::unavailable("this process is starting: it does not serve yet").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request, routing::get};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn who_comes_too_early_is_told_to_come_again_and_then_served() {
        let late = LateRouter::default();
        let ask = async |router: Router| {
            let request = Request::get("/v1/ws").body(Body::empty()).unwrap();
            router.oneshot(request).await.unwrap()
        };
        let server = late.clone();
        let early = ask(server.present()).await;
        assert_eq!(early.status(), 503);
        assert_eq!(early.headers()["retry-after"], "1");
        assert_eq!(early.headers()["content-type"], "application/problem+json");
        late.open(Router::new().route("/v1/ws", get(|| async { "served" })));
        assert_eq!(ask(server.present()).await.status(), 200);
    }
}
