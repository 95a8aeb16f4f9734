//! A way to the database that can be cut, or made to hang.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use url::Url;

use crate::kit::Database;

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Open.
    Open,
    /// Connections are taken, and stay; not a byte passes.
    Hangs,
    /// Connections are closed.
    Cut,
    /// Open, but nothing comes back on a connection once it has been asked to commit.
    SwallowsCommits,
}

impl Way {
    fn passes(self) -> bool {
        matches!(self, Way::Open | Way::SwallowsCommits)
    }
}

/// A listener that passes connections on to a database, on threads of its own: the test's may be delayed by the database itself.
pub struct Proxy {
    /// The database's URL by this way.
    pub url: String,
    /// Of the connections to come, which is last, and of those that were left hanging.
    ways: Arc<Mutex<Vec<watch::Sender<Way>>>>,
    runtime: Option<Runtime>,
}

trait Peer: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Peer for T {}

impl Proxy {
    /// Opens a way to a database.
    pub async fn open(database: &Database) -> Proxy {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let target = Url::parse(&database.url).unwrap();
        let (user, password) = (target.username(), target.password().unwrap());
        let url = format!(
            "postgresql://{user}:{password}@{}{}",
            listener.local_addr().unwrap(),
            target.path()
        );
        let ways = Arc::new(Mutex::new(vec![watch::Sender::new(Way::Open)]));
        let current = ways.clone();
        runtime.spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let way = current.lock().unwrap().last().unwrap().subscribe();
                tokio::spawn(pass(caller, target.clone(), way));
            }
        });
        Proxy { url, ways, runtime: Some(runtime) }
    }

    /// Changes how the way is, also for connections that are open.
    pub fn set(&self, way: Way) {
        self.ways.lock().unwrap().last().unwrap().send_replace(way);
    }

    /// Lets nothing more pass on the connections that are open, for ever; later ones are open.
    pub fn leave_hanging(&self) {
        self.set(Way::Hangs);
        self.ways.lock().unwrap().push(watch::Sender::new(Way::Open));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Closes every connection.
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn pass(caller: TcpStream, target: Url, way: watch::Receiver<Way>) {
    let mut cut = way.clone();
    let relay = async move {
        way.clone().wait_for(|way| way.passes()).await.ok()?;
        let committed = AtomicBool::new(false);
        let (from_caller, to_caller) = split(caller);
        let (from_database, to_database) = split(connect(&target).await);
        let there = pump(from_caller, to_database, way.clone(), |asked, way| {
            if way == Way::SwallowsCommits && asked.windows(6).any(|word| word == b"COMMIT") {
                committed.store(true, Ordering::SeqCst);
            }
            true
        });
        let back =
            pump(from_database, to_caller, way.clone(), |_, _| !committed.load(Ordering::SeqCst));
        tokio::join!(there, back);
        Some(())
    };
    tokio::select! {
        _ = relay => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// Passes on what is read, where `admit` lets it; while the way hangs it is kept.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    admit: impl Fn(&[u8], Way) -> bool,
) {
    let mut buffer = vec![0; 1 << 14];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Ok(way) = way.wait_for(|way| way.passes()).await.map(|way| *way) else { return };
        if admit(&buffer[..length], way) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn connect(target: &Url) -> Box<dyn Peer> {
    let host = target.host_str().unwrap().replace("%2F", "/").replace("%2f", "/");
    let port = target.port().unwrap_or(5432);
    if host.starts_with('/') {
        let socket: PathBuf = [host.as_str(), &format!(".s.PGSQL.{port}")].iter().collect();
        return Box::new(UnixStream::connect(socket).await.unwrap());
    }
    Box::new(TcpStream::connect((host.as_str(), port)).await.unwrap())
}
