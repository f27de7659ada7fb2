//! Accepts connections and serves HTTP/1.1, HTTP/2 and WebSocket upgrades on them. `axum::serve`
//! would do, but it bounds neither the connections nor the time a client takes to say something.

use crate::{GatewayConfig, LateRouter};
use axum::body::Body;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// What the client that is one too many gets.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 1\r\ncontent-type: application/problem+json\r\n\
    content-length: 127\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections\",\"code\":\"too_many_connections\"}";

/// Where a client's head of a request may take this much memory at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// How long to wait where the process has no file descriptors left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop`; then takes no more connections, lets requests that have begun
/// end, for `drain_ms` at most, and closes the rest. Upgraded connections belong to whoever
/// upgraded them, but count as connections until they are closed.
///
/// # Errors
/// None at present: what goes wrong with one connection is that connection's.
pub async fn serve(
    listener: TcpListener,
    router: impl Into<LateRouter>,
    config: &GatewayConfig,
    stop: CancellationToken,
) -> io::Result<()> {
    let server = Arc::new(Server::new(router.into(), config, stop.clone()));
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                let connection = Connection::new(stream, permit, config);
                connections.spawn(Arc::clone(&server).serve_connection(connection));
            }
            Err(_) => {
                metrics::counter!("chaski_http_connections_refused_total").increment(1);
                // It has just been accepted, so there is room in its send buffer.
                let _ = stream.try_write(FULL);
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(server.drain, ended).await.is_err() {
        tracing::warn!(left = connections.len(), "requests did not end in time");
    }
    connections.shutdown().await;
    Ok(())
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    // These are the fault of the one client that was about to be accepted.
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
    }
}

struct Server {
    router: LateRouter,
    http: Builder<TokioExecutor>,
    first_request: Duration,
    drain: Duration,
    stop: CancellationToken,
}

impl Server {
    fn new(router: LateRouter, config: &GatewayConfig, stop: CancellationToken) -> Self {
        let first_request = Duration::from_millis(config.header_read_timeout_ms);
        let keepalive = Duration::from_millis(config.http2_keepalive_ms);
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(first_request)
            .max_buf_size(HEAD_BYTES_MAX);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(keepalive)
            .keep_alive_timeout(keepalive)
            .max_concurrent_streams(config.http2_streams_max)
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        let drain = Duration::from_millis(config.drain_ms);
        Self { router, http, first_request, drain, stop }
    }

    async fn serve_connection(self: Arc<Self>, connection: Connection) {
        // hyper's own timeout begins once it knows which version of HTTP is spoken, so a client
        // that says nothing at all would stay.
        let begun = Notify::new();
        let service = service_fn(|request: Request<Incoming>| {
            begun.notify_one();
            self.router.present().oneshot(request.map(Body::new))
        });
        let io = TokioIo::new(connection);
        let mut served = Box::pin(self.http.serve_connection_with_upgrades(io, service));
        tokio::select! {
            _ = &mut served => return,
            () = self.stop.cancelled() => {}
            begun = tokio::time::timeout(self.first_request, begun.notified()) => {
                if begun.is_err() {
                    metrics::counter!("chaski_http_silent_connections_total").increment(1);
                    return;
                }
                tokio::select! {
                    _ = &mut served => return,
                    () = self.stop.cancelled() => {}
                }
            }
        }
        served.as_mut().graceful_shutdown();
        // An error says that this client broke off, which is for nobody to handle.
        let _ = served.await;
    }
}

/// A client's socket, with the permit that counts it: both go along when it becomes a WebSocket.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, config: &GatewayConfig) -> Self {
        metrics::gauge!("chaski_http_connections").increment(1.0);
        let unread = Duration::from_millis(config.unread_timeout_ms.into());
        let socket = socket2::SockRef::from(&stream);
        let set = socket.set_tcp_nodelay(true).and_then(|()| {
            // Also with a window of zero: for a client that is there, but never reads.
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(unread))?;
            socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(unread))
        });
        if let Err(error) = set {
            tracing::debug!(%error, "socket options");
        }
        Self { stream, _permit: permit }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::gauge!("chaski_http_connections").decrement(1.0);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
