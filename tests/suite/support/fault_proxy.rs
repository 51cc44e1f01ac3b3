//! A TCP proxy that does to a connection what networks and dying servers do. Its fault can be changed at any time, and
//! reaches connections that are open already.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What the proxy does to what passes through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything takes so much longer, in each direction.
    Latency(Duration),
    /// Nothing passes, and nobody is told.
    BlackHole,
    /// Every connection is reset, new ones at once.
    Reset,
    /// Each direction of a connection ends after so many bytes.
    CutAfter(usize),
    /// Bytes arrive one by one.
    OneByte,
}

/// The proxy.
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    _accepting: AbortOnDropHandle<()>,
}

impl FaultProxy {
    /// A proxy in front of an address, without a fault at first.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let (fault, heard) = watch::channel(Fault::None);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, target, heard.clone()));
            }
        });
        Self {
            address,
            fault,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut fault: watch::Receiver<Fault>) {
    let _ = client.set_nodelay(true);
    // Whoever connects into a black hole is accepted by the kernel and hears nothing more.
    if fault.wait_for(|fault| *fault != Fault::BlackHole).await.is_err() {
        return;
    }
    if *fault.borrow() != Fault::Reset
        && let Ok(mut server) = TcpStream::connect(target).await
    {
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = pump(from_client, to_server, fault.clone()) => {}
            () = pump(from_server, to_client, fault.clone()) => {}
        }
        if *fault.borrow() == Fault::Reset {
            let _ = server.set_zero_linger();
        }
    }
    if *fault.borrow() == Fault::Reset {
        let _ = client.set_zero_linger();
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut fault: watch::Receiver<Fault>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            changed = fault.changed() => match changed {
                Ok(()) if *fault.borrow() != Fault::Reset => continue,
                _ => return,
            },
        };
        if read == 0 {
            return;
        }
        let Ok(()) = pass(&buffer[..read], &mut passed, &mut to, &mut fault).await else {
            return;
        };
    }
}

/// Passes bytes on as the fault says. An error ends the connection.
async fn pass(
    bytes: &[u8],
    passed: &mut usize,
    to: &mut WriteHalf<'_>,
    fault: &mut watch::Receiver<Fault>,
) -> std::io::Result<()> {
    let ended = || std::io::Error::other("it ends here");
    loop {
        let now = *fault.borrow_and_update();
        match now {
            Fault::Reset => return Err(ended()),
            Fault::BlackHole => {
                if fault.changed().await.is_err() {
                    return Err(ended());
                }
            }
            Fault::None => break to.write_all(bytes).await,
            Fault::Latency(latency) => {
                tokio::time::sleep(latency).await;
                break to.write_all(bytes).await;
            }
            Fault::CutAfter(most) => {
                let left = most.saturating_sub(*passed).min(bytes.len());
                to.write_all(&bytes[..left]).await?;
                *passed += left;
                break if left < bytes.len() { Err(ended()) } else { Ok(()) };
            }
            Fault::OneByte => {
                for byte in bytes {
                    to.write_all(std::slice::from_ref(byte)).await?;
                    tokio::task::yield_now().await;
                }
                break Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that says back what it hears.
    async fn echo() -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (address, AbortOnDropHandle::new(serving))
    }

    async fn says_back(stream: &mut TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(words).await?;
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn it_does_each_of_its_faults() {
        let (target, _serving) = echo().await;
        let proxy = FaultProxy::start(target).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(says_back(&mut stream, b"hello").await.unwrap(), b"hello");

        proxy.set(Fault::OneByte);
        assert_eq!(says_back(&mut stream, b"one by one").await.unwrap(), b"one by one");

        proxy.set(Fault::Latency(Duration::from_millis(60)));
        let begun = Instant::now();
        assert_eq!(says_back(&mut stream, b"slow").await.unwrap(), b"slow");
        assert!(begun.elapsed() >= Duration::from_millis(120));

        proxy.set(Fault::BlackHole);
        let silent = tokio::time::timeout(Duration::from_millis(100), says_back(&mut stream, b"lost?")).await;
        assert!(silent.is_err());
        proxy.set(Fault::None);
        let mut late = [0; 5];
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"lost?", "a black hole that ends gives back what it swallowed");

        proxy.set(Fault::CutAfter(3));
        let mut cut = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says_back(&mut cut, b"four").await.is_err());

        proxy.set(Fault::Reset);
        assert!(says_back(&mut stream, b"reset").await.is_err());
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says_back(&mut refused, b"again").await.is_err());
    }
}
