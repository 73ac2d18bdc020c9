//! Promise: once it is up the balancer is whom the configuration names, holds what it needs and no more, in every
//! thread, and forwards, checks, reloads, drains and stops like that, over either driver; `status` says what is held.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Download, Nginx, Payload, Playground, visit,
    };
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// CAP_NET_ADMIN and CAP_NET_RAW, as /proc writes them.
    const KEPT: &str = "0000000000003000";
    const NONE: &str = "0000000000000000";

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn another_user_confined_does_everything_over_io_uring() {
        everything_goes_on("io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn another_user_confined_does_everything_over_epoll() {
        everything_goes_on("epoll");
    }

    fn everything_goes_on(driver: &str) {
        let playground = Playground::plan().queues(2).up();
        let payload = Payload::megabytes(4, 3);
        let mut nginx = Nginx::on_all(&playground, &payload, "8m");
        let process = "[process]\nuser = \"nobody\"\nseccomp = true";
        let configuration = Configuration::native()
            .drain("1s")
            .table(process)
            .web(playground.backends());
        let environment = [("RINGGATE_DRIVER", driver)];
        let mut balancer =
            Balancer::start_unready(RINGGATE, &playground, &configuration, &environment);
        // Whom it becomes must be able to read the file again.
        fs::set_permissions(balancer.directory(), Permissions::from_mode(0o755)).unwrap();
        balancer.wait_until_ready();
        tells_what_is_held(&balancer, driver);

        let fetch = |address: &str| {
            let url = format!("http://{address}/file");
            let sum = Download::start(&playground, &url).finish();
            assert_eq!(sum.as_ref(), Ok(&payload.sha256), "{address}");
        };
        fetch("10.100.0.1:80");
        fetch("[fd00:100::2]:80");
        let fewer = Configuration::native()
            .drain("1s")
            .table(process)
            .web(1..=2);
        balancer.reload(&fewer);
        balancer.reload(&configuration);
        nginx[1].kill();
        balancer.wait_for(Duration::from_secs(5), "b2 is down", |status| {
            status.backends("web4")["10.2.0.12:8080"].text("/state") == "down"
        });
        fetch("10.100.0.1:80");
        nginx[1].restart();
        balancer.wait_for(Duration::from_secs(5), "b2 is up", |status| {
            status.backends("web4")["10.2.0.12:8080"].text("/state") == "up"
        });
        // A neighbour that is forgotten is asked for again, which takes CAP_NET_ADMIN.
        playground.change("lb", "neigh flush dev back");
        fetch("10.100.0.1:80");
        assert_eq!(balancer.ask(&["flush", "--all"]).status.code(), Some(0));
        balancer.assert_accounts_balance();

        balancer.rewrite("not a configuration");
        balancer.signal(Signal::HUP);
        let target = "10.100.0.1:80".parse().unwrap();
        playground.inside("client", || visit(target)).unwrap();
        balancer.signal(Signal::TERM);
        let ended = balancer.wait(Duration::from_secs(8)).code();
        assert_eq!(ended, Some(0), "{}", balancer.log());
        assert!(
            balancer.log().contains("reload refused"),
            "{}",
            balancer.log()
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn root_that_nobody_asked_to_change_keeps_no_more_either() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        let _nginx = Nginx::on_all(&playground, &payload, "8m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        every_thread(&balancer, 0, false);
        assert_eq!(balancer.status().0["process"]["seccomp"], false);
        let sum = Download::start(&playground, "http://10.100.0.1/file").finish();
        assert_eq!(sum.as_ref(), Ok(&payload.sha256));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_user_who_is_not_there_is_refused_before_an_interface_is_touched() {
        let playground = Playground::plan().up();
        let configuration = Configuration::native()
            .table("[process]\nuser = \"no-such-user\"")
            .web(playground.backends());
        let mut balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &[]);
        assert_eq!(balancer.wait(Duration::from_secs(5)).code(), Some(2));
        let log = balancer.log();
        assert!(
            log.contains("there is no such user") && !log.contains("bound"),
            "{log}"
        );
    }

    fn tells_what_is_held(balancer: &Balancer, driver: &str) {
        let status = balancer.status();
        assert_eq!(status.text("/control/io"), driver);
        let nobody = nix_id("nobody");
        assert_eq!(status.number("/process/uid"), nobody);
        assert_eq!(
            status.0["process"]["capabilities"],
            serde_json::json!(["CAP_NET_ADMIN", "CAP_NET_RAW"])
        );
        assert_eq!(
            status.0["process"]["workers_capabilities"],
            serde_json::json!([])
        );
        assert_eq!(status.0["process"]["no_new_privs"], true);
        assert_eq!(status.0["process"]["seccomp"], true);
        let text = balancer.ask(&["status"]).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("capabilities CAP_NET_ADMIN CAP_NET_RAW, of workers none"),
            "{text}"
        );
        every_thread(balancer, nobody, true);
    }

    /// What the kernel says of every thread.
    fn every_thread(balancer: &Balancer, uid: u64, confined: bool) {
        let tasks = fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
        let mut workers = 0;
        for task in tasks {
            let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let fields: BTreeMap<&str, &str> = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name, value.trim()))
                .collect();
            let name = fields["Name"];
            let ids = [uid; 4].map(|id| id.to_string()).join("\t");
            assert_eq!(fields["Uid"], ids, "{name}");
            assert_eq!(fields["NoNewPrivs"], "1", "{name}");
            assert_eq!(
                fields["Seccomp"],
                if confined { "2" } else { "0" },
                "{name}"
            );
            let is_worker = name.starts_with("worker-");
            workers += usize::from(is_worker);
            let permitted = if is_worker { NONE } else { KEPT };
            assert_eq!(
                (fields["CapPrm"], fields["CapEff"]),
                (permitted, permitted),
                "{name}"
            );
            assert_eq!((fields["CapInh"], fields["CapAmb"]), (NONE, NONE), "{name}");
        }
        assert!(workers > 0, "no worker was looked at");
    }

    fn nix_id(name: &str) -> u64 {
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let account = accounts
            .lines()
            .find(|line| line.split(':').next() == Some(name));
        account.unwrap().split(':').nth(2).unwrap().parse().unwrap()
    }
}
