//! Promise: whoever knows a connection's addresses and ports, and not where its sequence numbers
//! are, cannot end it, neither at the hosts nor in the balancer's flow table. What is forged so is
//! counted.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Frame, Playground, RawLink, Service, Status, Tap,
        TcpEcho, connect_from, until,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const PORT: u16 = 7_000;
    const RST: u8 = 0x04;
    const RST_ACK: u8 = 0x14;
    const FIN_ACK: u8 = 0x11;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn over_nat_a_forged_end_ends_nothing() {
        a_forged_end_ends_nothing("10.1.0.2:23000", "10.100.0.1:7000", false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn over_nat_ipv6_a_forged_end_ends_nothing() {
        a_forged_end_ends_nothing("[fd00:1::2]:23000", "[fd00:100::1]:7000", false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn over_direct_return_a_forged_end_ends_nothing() {
        a_forged_end_ends_nothing("10.1.1.2:23000", "10.100.0.2:7000", true);
    }

    fn a_forged_end_ends_nothing(client: &str, service: &str, is_direct: bool) {
        let playground = Playground::plan().up();
        let _echo = if is_direct {
            let virtual_address = [service.parse().unwrap()];
            let start =
                |number| TcpEcho::start(&playground, &format!("b{number}"), &virtual_address);
            playground.backends().map(start).collect()
        } else {
            TcpEcho::on_all(&playground, PORT)
        };
        let echo = Service::tcp("echo", service);
        let echo = if is_direct { echo.direct() } else { echo };
        let echo = echo.backends(playground.backends(), PORT);
        let configuration = Configuration::native().service(echo);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let ends: (SocketAddr, SocketAddr) = (client.parse().unwrap(), service.parse().unwrap());

        let tap = Tap::open(&playground, "client", "c0");
        let stream = playground.inside("client", || connect_from(ends.0, ends.1));
        let mut conversation = Conversation::over(stream.unwrap()).unwrap();
        let backend = conversation.say().unwrap();
        // Of its first segment, the SYN: the connection is still near.
        let sequence = tap.sequence(ends.0, ends.1);
        assert_eq!(conversation.say().unwrap(), backend);
        assert_eq!(state(&balancer, ends), "established");

        let macs = [
            playground.hardware_address("client", "c0"),
            playground.hardware_address("lb", "front"),
        ];
        let link = RawLink::open(&playground, "client", "c0");
        let forge = |flags, away: u32| {
            let at = sequence.wrapping_add(away);
            link.send(Frame::segment(macs, ends, flags, at).bytes());
        };
        let mut forged = 0;
        for away in [1 << 31, 1 << 24, (1_u32 << 24).wrapping_neg()] {
            for flags in [RST, RST_ACK, FIN_ACK] {
                forge(flags, away);
                forged += 1;
                wait_for(&balancer, "a forged end is counted", |status| {
                    status.number("/flows/out_of_window") == forged
                });
                assert_eq!(state(&balancer, ends), "established");
                assert_eq!(conversation.say().unwrap(), backend);
            }
        }

        // One from within the window ends the flow here; that it is not exact, only the host knows
        // (RFC 5961), and it goes on, to the same backend.
        forge(RST, 1 << 20);
        wait_for(&balancer, "the flow is closed", |_| {
            state(&balancer, ends) == "closed"
        });
        assert_eq!(conversation.say().unwrap(), backend);
        let status = balancer.assert_accounts_balance();
        assert_eq!(status.number("/flows/out_of_window"), forged);
    }

    fn wait_for(balancer: &Balancer, what: &str, is_so: impl Fn(&Status) -> bool) {
        let look = || is_so(&balancer.status()).then_some(());
        until(Duration::from_secs(5), what, look);
    }

    /// What the balancer knows of the flow.
    fn state(balancer: &Balancer, (from, to): (SocketAddr, SocketAddr)) -> String {
        let answer = balancer.explain(from, to);
        answer["flow"].as_str().unwrap_or("none").to_owned()
    }
}
