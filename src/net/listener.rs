//! The listening socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::stream::set_options;

/// Connections that the kernel keeps while none is accepted.
const BACKLOG: u32 = 1024;

/// Binds and listens; the address may be taken again at once after a restart. What it accepts is for [`Stream::accepted`].
///
/// [`Stream::accepted`]: super::Stream::accepted
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    set_options(&socket)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpStream;

    use super::*;

    /// That it is so on Linux is what `Stream::accepted` relies on.
    #[tokio::test]
    async fn a_listener_hands_its_options_on() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = listen(address.parse().unwrap()) else {
                // A machine may have no IPv6.
                assert!(address.starts_with('['));
                continue;
            };
            let address = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (_client, (accepted, _)) = (client.unwrap(), accepted.unwrap());
            let options = SockRef::from(&accepted);
            assert!(options.tcp_nodelay().unwrap() && options.keepalive().unwrap());
            assert_eq!(options.tcp_keepalive_time().unwrap().as_secs(), 60);
            assert_eq!(options.tcp_keepalive_interval().unwrap().as_secs(), 10);
        }
    }
}
