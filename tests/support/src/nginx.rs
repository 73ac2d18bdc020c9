//! nginx on a backend: a real web server that says which one it is.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use tempfile::TempDir;

use crate::clock::until;
use crate::payload::{Payload, sha256_of};
use crate::playground::Playground;
use crate::process::Process;

/// nginx on one backend. Serves `/` with the backend's name, `/file` with the payload as fast
/// as it goes and `/slow` with the payload at the rate asked for, and takes what is put below
/// `/upload/`, on ports 8080 and 80 of the backend's addresses (80 for the checks of direct
/// return), and port 80 and ports [`Nginx::MORE`] of the direct-return addresses.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    directory: TempDir,
    namespace: String,
    addresses: [SocketAddr; 6],
}

impl Nginx {
    /// Ports of the direct-return addresses for services that cannot rewrite them.
    pub const MORE: RangeInclusive<u16> = 8001..=8004;

    /// Starts one on the backend with this number and waits until it listens. `slow_rate` is in
    /// nginx's notation of bytes per second, like `4m`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(playground: &Playground, number: u8, payload: &Payload, slow_rate: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses = addresses(number);
        fs::create_dir(directory.path().join("upload")).unwrap();
        let text = configuration(&directory, number, &addresses, payload, slow_rate);
        fs::write(directory.path().join("nginx.conf"), text).unwrap();
        let node = format!("b{number}");
        let process = spawn(&playground.namespace(&node), &directory);
        let namespace = playground.namespace(&node);
        let mut nginx = Self {
            process,
            directory,
            namespace,
            addresses,
        };
        nginx.wait_until_it_listens();
        nginx
    }

    /// One on every backend of the playground.
    ///
    /// # Panics
    ///
    /// When one does not start.
    #[must_use]
    pub fn on_all(playground: &Playground, payload: &Payload, slow_rate: &str) -> Vec<Self> {
        let start = |number| Self::start(playground, number, payload, slow_rate);
        playground.backends().map(start).collect()
    }

    /// The sha256 of what was put as `/upload/NAME`.
    ///
    /// # Panics
    ///
    /// When nothing was.
    #[must_use]
    pub fn uploaded(&self, name: &str) -> String {
        sha256_of(&self.directory.path().join("upload").join(name))
    }

    /// Ends it without warning; its connections are reset.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Nginx::kill`].
    pub fn restart(&mut self) {
        self.process = spawn(&self.namespace, &self.directory);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        let namespace = self.namespace.clone();
        let addresses = self.addresses;
        until(Duration::from_secs(5), "nginx listens", || {
            if let Some(status) = self.process.ended() {
                let log = fs::read_to_string(self.directory.path().join("error.log"));
                panic!("nginx ended with {status}: {}", log.unwrap_or_default());
            }
            let connect = |address: &SocketAddr| -> io::Result<TcpStream> {
                TcpStream::connect_timeout(address, Duration::from_secs(1))
            };
            crate::inside(&namespace, || addresses.iter().all(|a| connect(a).is_ok())).then_some(())
        });
    }
}

/// Without a master there is one process to kill.
fn spawn(namespace: &str, directory: &TempDir) -> Process {
    let path = directory.path();
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", namespace, "nginx"]);
    command.arg("-e").arg(path.join("error.log"));
    command.arg("-p").arg(path);
    command.arg("-c").arg(path.join("nginx.conf"));
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn addresses(number: u8) -> [SocketAddr; 6] {
    let last = 10 + number;
    [
        format!("10.2.0.{last}:8080").parse().unwrap(),
        format!("[fd00:2::{last}]:8080").parse().unwrap(),
        format!("10.2.0.{last}:80").parse().unwrap(),
        format!("[fd00:2::{last}]:80").parse().unwrap(),
        "10.100.0.2:80".parse().unwrap(),
        "[fd00:100::2]:80".parse().unwrap(),
    ]
}

fn configuration(
    directory: &TempDir,
    number: u8,
    addresses: &[SocketAddr],
    payload: &Payload,
    slow_rate: &str,
) -> String {
    let path = directory.path().display();
    let file = payload.path.display();
    let mut listens = String::new();
    for address in addresses {
        writeln!(listens, "        listen {address} backlog=4096;").unwrap();
    }
    let (first, last) = Nginx::MORE.into_inner();
    for address in ["10.100.0.2", "[fd00:100::2]"] {
        writeln!(listens, "        listen {address}:{first}-{last};").unwrap();
    }
    let mut temporary = String::new();
    for what in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "    {what}_temp_path {path}/{what};").unwrap();
    }
    format!(
        "user root;
daemon off;
master_process off;
pid {path}/nginx.pid;
error_log {path}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    add_header X-Backend b{number};
{temporary}    server {{
{listens}        location / {{ return 200 \"b{number}\"; }}
        location = /file {{ alias {file}; }}
        location = /slow {{ alias {file}; limit_rate {slow_rate}; }}
        location /upload/ {{ root {path}; dav_methods PUT; client_max_body_size 0; }}
    }}
}}
"
    )
}
