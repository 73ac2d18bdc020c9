//! A second tier: proxies on backends that hand on to nginx on other backends. HAProxy and nginx's stream
//! module, as Debian has them.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::clock::until;
use crate::playground::Playground;
use crate::process::Process;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy, which carries bytes on [`Proxy::TCP`] and requests on [`Proxy::HTTP`].
    HaProxy,
    /// nginx's stream module, which carries bytes on [`Proxy::STREAM`].
    Stream,
}

/// A proxy on one backend.
#[derive(Debug)]
pub struct Proxy {
    kind: Kind,
    process: Process,
    directory: TempDir,
    namespace: String,
    listens: Vec<SocketAddr>,
}

impl Proxy {
    /// HAProxy in TCP mode.
    pub const TCP: u16 = 9001;
    /// HAProxy in HTTP mode.
    pub const HTTP: u16 = 9002;
    /// nginx stream.
    pub const STREAM: u16 = 9003;

    /// Starts one on the backend with this number, before the nginx of others, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(playground: &Playground, kind: Kind, number: u8, before: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = match kind {
            Kind::HaProxy => vec![Self::TCP, Self::HTTP],
            Kind::Stream => vec![Self::STREAM],
        };
        let own = |port| format!("10.2.0.{}:{port}", 10 + number).parse().unwrap();
        let listens: Vec<SocketAddr> = ports.into_iter().map(own).collect();
        let text = match kind {
            Kind::HaProxy => haproxy(&listens, before),
            Kind::Stream => stream(&listens, before, &directory),
        };
        fs::write(directory.path().join("conf"), text).unwrap();
        let namespace = playground.namespace(&format!("b{number}"));
        let process = spawn(kind, &namespace, &directory);
        let mut proxy = Self {
            kind,
            process,
            directory,
            namespace,
            listens,
        };
        proxy.wait_until_it_listens();
        proxy
    }

    /// Ends it as an upgrade would, at once, and starts it again.
    ///
    /// # Panics
    ///
    /// When it does not end or start.
    pub fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(5));
        self.process = spawn(self.kind, &self.namespace, &self.directory);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        until(Duration::from_secs(5), "the proxy listens", || {
            if let Some(status) = self.process.ended() {
                let log = fs::read_to_string(self.directory.path().join("log"));
                panic!(
                    "{:?} ended with {status}: {}",
                    self.kind,
                    log.unwrap_or_default()
                );
            }
            let connect = |address: &SocketAddr| {
                TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok()
            };
            crate::inside(&self.namespace, || self.listens.iter().all(connect)).then_some(())
        });
    }
}

fn spawn(kind: Kind, namespace: &str, directory: &TempDir) -> Process {
    let path = directory.path();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]);
    match kind {
        Kind::HaProxy => command
            .args(["haproxy", "-db", "-f"])
            .arg(path.join("conf")),
        Kind::Stream => {
            command.args(["nginx", "-e"]).arg(path.join("error.log"));
            command.arg("-p").arg(path).arg("-c").arg(path.join("conf"))
        }
    };
    let log = fs::File::create(path.join("log")).unwrap();
    let said = log.try_clone().unwrap();
    Process::start(command.stdout(Stdio::from(log)).stderr(Stdio::from(said)))
}

fn haproxy(listens: &[SocketAddr], before: &[u8]) -> String {
    let mut text = "global\n    maxconn 2000\ndefaults\n    timeout connect 5s\n    \
                    timeout client 30s\n    timeout server 30s\n"
        .to_owned();
    for (listen, mode) in listens.iter().zip(["tcp", "http"]) {
        writeln!(text, "listen {mode}\n    bind {listen}\n    mode {mode}").unwrap();
        for number in before {
            writeln!(text, "    server b{number} 10.2.0.{}:8080", 10 + number).unwrap();
        }
    }
    text
}

fn stream(listens: &[SocketAddr], before: &[u8], directory: &TempDir) -> String {
    let path = directory.path().display();
    let mut servers = String::new();
    for number in before {
        write!(servers, "server 10.2.0.{}:8080; ", 10 + number).unwrap();
    }
    let mut listening = String::new();
    for listen in listens {
        write!(listening, "listen {listen} backlog=4096; ").unwrap();
    }
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
daemon off;
master_process off;
pid {path}/nginx.pid;
error_log {path}/error.log;
events {{ worker_connections 4096; }}
stream {{
    upstream tier {{ {servers} }}
    server {{ {listening} proxy_pass tier; }}
}}
"
    )
}
