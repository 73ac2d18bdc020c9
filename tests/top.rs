//! Promise: `ringgate top` shows a balancer as it is: as text for scripts, and live on a terminal, which it
//! leaves as it was; a balancer that stops is said to, and one that returns is followed again.

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use ringgate_playground::{Balancer, Configuration, Nginx, Payload, Playground, pause, until};
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// What a terminal is told when a program takes it and when it gives it back: the other screen.
    const TAKEN: &str = "\x1b[?1049h";
    const LEFT: &str = "\x1b[?1049l";

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_screen_as_text_has_rates_states_and_reasons() {
        let playground = Playground::plan().up();
        let nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        let screen = |arguments: &[&str]| {
            let output = balancer.ask(&[&["top"], arguments].concat());
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        // Under traffic that outlasts the two looks.
        let services = std::thread::scope(|scope| {
            let visits = scope.spawn(|| {
                let target = "10.100.0.1:80".parse().unwrap();
                playground.visits(target, 3_000)
            });
            let screen = screen(&["--once", "--interval", "200"]);
            assert_eq!(visits.join().unwrap().answered(), 3_000);
            screen
        });
        for service in ["web4", "web6", "direct4", "direct6"] {
            assert!(services.contains(service), "{services}");
        }
        let web = services.lines().find(|line| line.contains("web4")).unwrap();
        assert!(web.contains("3/3"), "{services}");
        let header = services.lines().nth(1).unwrap();
        assert!(!header.contains(" 0 received"), "{services}");

        drop(nginx);
        balancer.wait_for(Duration::from_secs(5), "backends are down", |status| {
            (1..=3).all(|number| status.states(number) == ["down"])
        });
        // No terminal, so it is as with --once.
        let backends = screen(&["--service", "web4", "--interval", "100"]);
        assert_eq!(
            backends.matches("connection refused").count(),
            4,
            "{backends}"
        );
        let filtered = screen(&["--once", "--service", "web4", "--filter", ".12:"]);
        assert!(filtered.contains("10.2.0.12:8080") && !filtered.contains("10.2.0.13:8080"));
        for name in ["workers", "interfaces", "drops"] {
            let screen = screen(&["--once", "--interval", "100", "--screen", name]);
            assert!(screen.contains(name), "{screen}");
        }
    }

    #[test]
    fn without_a_balancer_it_says_so() {
        let arguments = ["top", "--once", "--admin", "/nonexistent/admin.sock"];
        let output = Command::new(RINGGATE).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no ringgate is running here"), "{said}");
    }

    /// `top` on a terminal of its own.
    struct Terminal {
        child: Child,
        output: Receiver<Vec<u8>>,
        seen: String,
        columns: u16,
    }

    impl Terminal {
        fn start(balancer: &Balancer) -> Self {
            let admin = balancer.admin();
            let command = format!(
                "stty cols 110 rows 24; exec {RINGGATE} top --interval 100 --admin {}",
                admin.display()
            );
            // util-linux' script makes the terminal.
            let mut child = Command::new("script")
                .args(["-qfec", &command, "/dev/null"])
                .env("TERM", "xterm")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (tell, output) = channel();
            let mut stdout = child.stdout.take().unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                    if tell.send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
            });
            let seen = String::new();
            Self {
                child,
                output,
                seen,
                columns: 110,
            }
        }

        /// Changes the terminal's size, and returns what is drawn in the next moment: all of it, but
        /// without blanks, which need no drawing.
        fn drawn_anew(&mut self) -> String {
            let top = run_by(self.child.id());
            let terminal = std::fs::read_link(format!("/proc/{top}/fd/0")).unwrap();
            self.columns ^= 1;
            let columns = self.columns.to_string();
            let stty = Command::new("stty")
                .arg("-F")
                .arg(terminal)
                .args(["cols", &columns])
                .status();
            assert!(stty.unwrap().success());
            pause(Duration::from_millis(500));
            let pieces = self.output.try_iter().collect::<Vec<_>>().concat();
            String::from_utf8_lossy(&pieces).into_owned()
        }

        /// Waits until this has been shown since the last time. One word: blanks need no drawing.
        fn expect(&mut self, what: &str) {
            until(
                Duration::from_secs(15),
                &format!("{what:?} is shown"),
                || {
                    while let Ok(bytes) = self.output.try_recv() {
                        self.seen += &String::from_utf8_lossy(&bytes);
                    }
                    let at = self.seen.find(what)?;
                    self.seen.drain(..at + what.len());
                    Some(())
                },
            );
        }

        fn press(&mut self, keys: &str) {
            let stdin = self.child.stdin.as_mut().unwrap();
            stdin.write_all(keys.as_bytes()).unwrap();
            stdin.flush().unwrap();
        }

        fn ends_well(mut self) {
            self.expect(LEFT);
            until(Duration::from_secs(5), "top has ended", || {
                let status = self.child.try_wait().unwrap()?;
                assert!(status.success(), "{status}");
                Some(())
            });
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn on_a_terminal_it_follows_a_balancer_that_stops_and_returns() {
        let playground = Playground::plan().backends(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let configuration = Configuration::native()
            .drain("0s")
            .web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);

        let mut terminal = Terminal::start(&balancer);
        terminal.expect(TAKEN);
        terminal.expect("direct4");
        terminal.press("\r");
        terminal.expect("dsr-l2,");
        balancer.signal(Signal::TERM);
        assert!(balancer.wait(Duration::from_secs(10)).success());
        terminal.expect("answer:");
        balancer.restart();
        until(Duration::from_secs(15), "it is followed again", || {
            let screen = terminal.drawn_anew();
            (screen.contains("dsr-l2,") && !screen.contains("answer:")).then_some(())
        });
        let again = Terminal::start(&balancer);
        terminal.press("q");
        terminal.ends_well();

        // By a signal as well.
        let mut terminal = again;
        terminal.expect("web4");
        let top = run_by(terminal.child.id());
        let pid = rustix::process::Pid::from_raw(top).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        terminal.ends_well();
    }

    /// The one child of a process.
    fn run_by(parent: u32) -> i32 {
        let children = format!("/proc/{parent}/task/{parent}/children");
        until(Duration::from_secs(5), "it runs", || {
            let children = std::fs::read_to_string(&children).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }
}
