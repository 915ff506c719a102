//! What an HTTP server says of itself by the status of a GET. Without TLS; nothing of the answer is read but its head.

use std::io;

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Over a connection of its own; redirects are not followed. Bounded by nothing: for the caller to cut off, at any time.
pub async fn status(host: &str, port: u16, path: &str) -> io::Result<u16> {
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = Request::get(path).header(HOST, name).body(String::new()).map_err(io::Error::other)?;
    let driven = async {
        let _ = connection.await;
        // What ended it is told with the request.
        std::future::pending().await
    };
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer.map_err(io::Error::other)?.status().as_u16()),
        never = driven => never,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_status_is_told_and_so_is_what_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/primary", get(|| async { "{}" }))
            .route("/replica", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(status("127.0.0.1", port, "/primary").await.unwrap(), 200);
        assert_eq!(status("127.0.0.1", port, "/replica").await.unwrap(), 503);
        assert_eq!(status("127.0.0.1", port, "/leader").await.unwrap(), 404);
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hung_up = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
        });
        assert!(status("127.0.0.1", port, "/primary").await.is_err());
        hung_up.await.unwrap();
        assert!(status("127.0.0.1", port, "/primary").await.is_err(), "nobody listens");
    }
}
