//! Promise: a service manager hears the truth (sd_notify(3)). READY=1 comes when packets are let
//! in and not before, so that whoever starts after it is served at once; RELOADING=1 is answered
//! by READY=1, also when the new file was refused; STOPPING=1 comes before the end.

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use ringgate_playground::{Balancer, Configuration, Nginx, Payload, Playground, visit};
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ready_reloading_and_stopping_are_told_when_they_are_true() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 12), "1m");
        let configuration = Configuration::native()
            .drain("1s")
            .web(playground.backends());
        let manager = Manager::listen();
        let environment = [("NOTIFY_SOCKET", manager.path())];

        // The host has no route for what it is not let in for, and says so: a visitor in IPv6
        // who comes too early does not try again.
        let mut balancer =
            Balancer::start_unready(RINGGATE, &playground, &configuration, &environment);
        assert!(manager.hear().starts_with("READY=1\n"));
        let target = "[fd00:100::1]:80".parse().unwrap();
        playground.inside("client", || visit(target)).unwrap();

        balancer.reload(&configuration);
        assert!(manager.hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(manager.hear().starts_with("READY=1\n"));
        balancer.rewrite("not a configuration");
        balancer.signal(Signal::HUP);
        assert!(manager.hear().starts_with("RELOADING=1\n"));
        assert!(
            manager.hear().starts_with("READY=1\n"),
            "the running configuration still serves"
        );

        balancer.signal(Signal::TERM);
        assert!(manager.hear().starts_with("STOPPING=1"));
        assert_eq!(
            balancer.wait(Duration::from_secs(6)).code(),
            Some(0),
            "{}",
            balancer.log()
        );
    }

    /// What the service manager hears.
    struct Manager {
        socket: UnixDatagram,
        path: String,
        _directory: tempfile::TempDir,
    }

    impl Manager {
        fn listen() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify").to_str().unwrap().to_owned();
            let socket = UnixDatagram::bind(&path).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(15)))
                .unwrap();
            Self {
                socket,
                path,
                _directory: directory,
            }
        }

        fn path(&self) -> &str {
            &self.path
        }

        fn hear(&self) -> String {
            let mut bytes = [0; 512];
            let length = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        }
    }
}
