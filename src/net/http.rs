//! HTTP to other servers, of which only the status of the answer matters. Without TLS; nothing of the answer is read but its
//! head.

use std::io;

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Over a connection of its own; redirects are not followed. Bounded by nothing: for the caller to cut off, at any time.
pub async fn status(host: &str, port: u16, path: &str) -> io::Result<u16> {
    send(host, port, Request::get(path), String::new()).await
}

/// As `status`, of a POST.
pub async fn post(host: &str, port: u16, path: &str, content_type: &str, body: String) -> io::Result<u16> {
    let request = Request::post(path).header(CONTENT_TYPE, content_type).header(CONTENT_LENGTH, body.len());
    send(host, port, request, body).await
}

async fn send(host: &str, port: u16, request: Builder, body: String) -> io::Result<u16> {
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = request.header(HOST, name).body(body).map_err(io::Error::other)?;
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

    async fn echo(headers: axum::http::HeaderMap, body: String) -> StatusCode {
        match (headers["content-type"].to_str(), body.len()) {
            (Ok("text/plain"), 100_000) => StatusCode::CREATED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    #[tokio::test]
    async fn the_status_is_told_and_so_is_what_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/primary", get(|| async { "{}" }))
            .route("/replica", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .route("/echo", axum::routing::post(echo));
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(status("127.0.0.1", port, "/primary").await.unwrap(), 200);
        assert_eq!(status("127.0.0.1", port, "/replica").await.unwrap(), 503);
        assert_eq!(status("127.0.0.1", port, "/leader").await.unwrap(), 404);
        let body = "x".repeat(100_000);
        assert_eq!(post("127.0.0.1", port, "/echo", "text/plain", body).await.unwrap(), 201);
        assert_eq!(post("127.0.0.1", port, "/echo", "text/html", String::new()).await.unwrap(), 400);
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
