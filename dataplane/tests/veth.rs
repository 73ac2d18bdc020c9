//! AF_XDP sockets and the steering program on real veth pairs. Each test has a network namespace of
//! its own, which goes with it.
//!
//! `cargo test -p ringgate-dataplane --test veth -- --ignored --test-threads=1`, as root.
//!
//! ```text
//!   a1 ═══ a0   [the ports under test]   b0 ═══ b1
//!   source                                     sink
//! ```

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use ringgate_dataplane::port::{BATCH, Batch, Port, XskPort};
    use ringgate_dataplane::steered::Steered;
    use ringgate_dataplane::wire::ethernet::Mac;
    use ringgate_dataplane::xsk::{
        AttachError, BindMode, Binding, BoundMode, BusyPoll, OpenError, Options, Pool,
        SteeringProgram, XdpMode, open,
    };

    use crate::support::{
        Flow, as_fragment, attached_program, in_namespace, ip, receive, send, small, steered,
        tagged, tcp, udp, veth, with_ip_options,
    };

    const UDP: u8 = 17;
    const TCP: u8 = 6;

    fn flow(from: &str, to: &str) -> Flow {
        Flow {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// One service, over UDP.
    fn one_service() -> Steered {
        steered(&[("10.0.0.1:80", UDP)], &[])
    }

    fn queue(name: &str, queue: u32) -> Binding {
        Binding {
            name: name.to_owned(),
            queue,
        }
    }

    fn open_one(name: &str) -> (XskPort, Pool) {
        let (mut ports, pool) = open(&[queue(name, 0)], &small()).unwrap();
        (ports.remove(0), pool)
    }

    /// Everything home, or it says where it is not.
    fn close_all(ports: Vec<XskPort>, pool: &mut Pool) {
        for port in ports {
            let closed = port.close(pool);
            assert_eq!(closed.lost, 0, "{closed:?}");
        }
        assert_eq!(pool.len(), pool.capacity());
    }

    /// Packets of both families with `size` bytes of payload, to two services.
    fn mixed(size: usize) -> Vec<Vec<u8>> {
        let v4 = |i| {
            (
                format!("10.0.0.{}:{}", 2 + i, 1000 + u16::from(i)),
                "10.0.0.1:80",
            )
        };
        let v6 = |i| (format!("[2001:db8::{}]:4000", 2 + i), "[2001:db8::1]:80");
        (0u8..8)
            .map(|i| {
                let (from, to) = if i % 2 == 0 { v4(i) } else { v6(i) };
                udp(flow(&from, to), &vec![i; size])
            })
            .collect()
    }

    /// Moves what A receives to B, until `count` frames have gone and come home.
    fn forward(ports: &mut [XskPort], pool: &mut Pool, count: usize) {
        let mut batch = Batch::new();
        let mut forwarded = 0;
        for _ in 0..1000 {
            XskPort::wait(ports, 5);
            forwarded += ports[0].receive(pool, &mut batch);
            batch.iter().for_each(|frame| frame.prefetch());
            ports[1].transmit(&mut batch);
            ports[1].kick();
            ports.iter_mut().for_each(|port| port.recycle(pool));
            if forwarded == count && ports[1].transmitting() == 0 {
                return;
            }
        }
        panic!(
            "{forwarded} of {count} forwarded: {:?}",
            ports[1].counters()
        );
    }

    /// Frames of both families cross from A to B in one memory, unchanged, and everybody counts
    /// the same.
    fn forwards(mode: XdpMode) {
        in_namespace(move || {
            veth("a0", "a1", 1);
            veth("b0", "b1", 1);
            let services = steered(&[("10.0.0.1:80", UDP), ("[2001:db8::1]:80", UDP)], &[]);
            let mut steer = SteeringProgram::attach("a0", mode).unwrap();
            let mut sink_steer = SteeringProgram::attach("b1", mode).unwrap();
            assert_eq!(steer.sync(&services).unwrap().added, 2);
            sink_steer.sync(&services).unwrap();

            let (mut ports, mut pool) = open(&[queue("a0", 0), queue("b0", 0)], &small()).unwrap();
            let (mut source, mut source_pool) = open_one("a1");
            let (mut sink, mut sink_pool) = open_one("b1");
            let bound = ports[0].bound();
            assert_eq!(bound.mode, BoundMode::Copy);
            assert!(
                bound
                    .fell_back
                    .as_deref()
                    .is_some_and(|why| why.contains("a0"))
            );
            steer.register(0, ports[0].as_fd()).unwrap();
            sink_steer.register(0, sink.as_fd()).unwrap();

            let mut sent = 0;
            for size in [0, 1, 18, 64, 512, 1400] {
                let packets = mixed(size);
                sent += packets.len() as u64;
                send(&mut source, &mut source_pool, &packets);
                forward(&mut ports, &mut pool, packets.len());
                assert_eq!(receive(&mut sink, &mut sink_pool, packets.len()), packets);
            }
            let (a, b) = (ports[0].counters(), ports[1].counters());
            assert_eq!((a.received, b.transmitted, b.completed), (sent, sent, sent));
            assert_eq!(
                (a.rx_refused, b.completion_refused, b.tx_refused),
                (0, 0, 0)
            );
            let steered = steer.counters().unwrap();
            assert_eq!(
                (steered.redirected_service, steered.redirected_return),
                (sent, 0)
            );
            assert_eq!(steered.passed_no_socket, 0);
            steer.unregister(0).unwrap();
            close_all(ports, &mut pool);
            close_all(vec![source], &mut source_pool);
            close_all(vec![sink], &mut sink_pool);
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn forwards_in_native_mode() {
        forwards(XdpMode::Native);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn forwards_in_generic_mode() {
        forwards(XdpMode::Generic);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn each_queue_has_its_own_socket() {
        in_namespace(|| {
            veth("a0", "a1", 2);
            let mut steer = SteeringProgram::attach("a0", XdpMode::Native).unwrap();
            steer.sync(&one_service()).unwrap();
            let mut workers: Vec<(XskPort, Pool)> = (0..2)
                .map(|q| {
                    let (mut ports, pool) = open(&[queue("a0", q)], &small()).unwrap();
                    steer.register(q, ports[0].as_fd()).unwrap();
                    (ports.remove(0), pool)
                })
                .collect();
            for q in 0..2 {
                let (mut sources, mut source_pool) = open(&[queue("a1", q)], &small()).unwrap();
                let packet = udp(flow("10.0.0.2:1000", "10.0.0.1:80"), &q.to_be_bytes());
                send(
                    &mut sources[0],
                    &mut source_pool,
                    std::slice::from_ref(&packet),
                );
                let (port, pool) = &mut workers[q as usize];
                assert_eq!(receive(port, pool, 1), [packet]);
                close_all(sources, &mut source_pool);
            }
            for (port, mut pool) in workers {
                assert_eq!(port.counters().received, 1);
                close_all(vec![port], &mut pool);
            }
        });
    }

    /// A balancer's interface `a0` with a service and a backend of each family, and the wire.
    struct Scene {
        steer: SteeringProgram,
        port: XskPort,
        pool: Pool,
        source: XskPort,
        source_pool: Pool,
    }

    impl Scene {
        fn new() -> Self {
            Self::in_mode(XdpMode::Native)
        }

        fn in_mode(mode: XdpMode) -> Self {
            veth("a0", "a1", 1);
            ip("addr add 10.0.0.1/24 dev a0");
            ip("addr add 2001:db8::1/64 dev a0 nodad");
            let mut steer = SteeringProgram::attach("a0", mode).unwrap();
            let services = [("10.0.0.1:80", UDP), ("[2001:db8::1]:80", UDP)];
            let returns = [("10.0.0.7:8080", UDP), ("[2001:db8::7]:8080", UDP)];
            let locals: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            let wanted = steered(&services, &returns);
            assert_eq!(steer.sync(&wanted).unwrap().added, 4);
            assert_eq!(steer.sync_locals(&locals).unwrap().added, 2);
            let (source, source_pool) = open_one("a1");
            let (port, pool) = open_one("a0");
            Self {
                steer,
                port,
                pool,
                source,
                source_pool,
            }
        }

        fn send(&mut self, packets: &[Vec<u8>]) {
            send(&mut self.source, &mut self.source_pool, packets);
        }

        fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
            receive(&mut self.port, &mut self.pool, count)
        }

        fn close(mut self) {
            close_all(vec![self.port], &mut self.pool);
            close_all(vec![self.source], &mut self.source_pool);
        }
    }

    fn to_services() -> [Flow; 2] {
        [
            flow("10.0.0.2:1", "10.0.0.1:80"),
            flow("[2001:db8::2]:1", "[2001:db8::1]:80"),
        ]
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_empty_slot_leaves_packets_to_the_kernel() {
        in_namespace(|| {
            let mut world = Scene::new();
            for flow in to_services() {
                let kernel = UdpSocket::bind(flow.to).unwrap();
                kernel
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                world.send(&[udp(flow, b"to the kernel")]);
                let mut heard = [0; 64];
                let (len, from) = kernel.recv_from(&mut heard).unwrap();
                assert_eq!(
                    (&heard[..len], from),
                    (b"to the kernel".as_slice(), flow.from)
                );
            }
            let counters = world.steer.counters().unwrap();
            assert_eq!(
                (counters.passed_no_socket, counters.redirected_service),
                (2, 0)
            );
            assert_eq!(world.port.counters().received, 0);
            world.close();
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn services_and_returns_are_taken() {
        takes(XdpMode::Native);
        takes(XdpMode::Generic);
    }

    fn takes(mode: XdpMode) {
        in_namespace(move || {
            let mut world = Scene::in_mode(mode);
            world.steer.register(0, world.port.as_fd()).unwrap();
            // From a backend's service port, to a client behind us.
            let returns = [
                flow("10.0.0.7:8080", "192.0.2.9:5000"),
                flow("[2001:db8::7]:8080", "[2001:db8:9::9]:5000"),
            ];
            let flows = to_services().into_iter().chain(returns);
            let mut packets: Vec<Vec<u8>> = flows.map(|flow| udp(flow, b"taken")).collect();
            packets.push(with_ip_options(&packets[0], 1));
            packets.push(with_ip_options(&packets[0], 10));
            packets.push(as_fragment(&packets[0], 0, true));
            packets.push(tagged(&packets[0], 5));
            packets.push(tagged(&tagged(&packets[1], 5), 6));
            world.send(&packets);
            assert_eq!(world.receive(packets.len()), packets);
            let counters = world.steer.counters().unwrap();
            assert_eq!(
                (counters.redirected_service, counters.redirected_return),
                (7, 2)
            );
            assert_eq!(counters.passed_no_socket, 0);
            world.close();
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn everything_else_is_the_kernels() {
        in_namespace(|| {
            let mut world = Scene::new();
            world.steer.register(0, world.port.as_fd()).unwrap();
            let ours = to_services().map(|flow| udp(flow, b"ours"));
            let passed = [
                // The answer to a health check, from the backend to ourselves.
                udp(flow("10.0.0.7:8080", "10.0.0.1:5000"), b"local"),
                udp(flow("[2001:db8::7]:8080", "[2001:db8::1]:5000"), b"local"),
                // Another port, of the service and of the backend.
                udp(flow("10.0.0.2:1", "10.0.0.1:81"), b"port"),
                udp(flow("10.0.0.7:8081", "192.0.2.9:5000"), b"port"),
                // Another protocol on the same port.
                tcp(flow("10.0.0.2:1", "10.0.0.1:80")),
                as_fragment(&ours[0], 185, false),
                tagged(&tagged(&tagged(&ours[0], 5), 6), 7),
                // Cut within the ports, and within the IP headers.
                ours[0][..37].to_vec(),
                ours[0][..33].to_vec(),
                ours[1][..57].to_vec(),
                ours[1][..53].to_vec(),
            ];
            world.send(&passed);
            // The last thing sent is for us, so all before it has been through.
            world.send(&ours[..1]);
            assert_eq!(world.receive(1), ours[..1]);
            let counters = world.steer.counters().unwrap();
            assert!(counters.passed_other >= passed.len() as u64, "{counters:?}");
            assert_eq!(
                (counters.redirected_service, counters.redirected_return),
                (1, 0)
            );
            world.close();
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn frames_for_another_hardware_address_are_the_kernels() {
        in_namespace(|| {
            let mut world = Scene::new();
            world.steer.register(0, world.port.as_fd()).unwrap();
            let [v4, v6] = to_services().map(|flow| udp(flow, b"mine?"));
            let mine = Mac(v4[..6].try_into().unwrap());
            world.steer.set_own_address(mine).unwrap();
            let to = |address: [u8; 6]| {
                let mut frame = v4.clone();
                frame[..6].copy_from_slice(&address);
                frame
            };
            let mut mapped = v6.clone();
            mapped[22..38]
                .copy_from_slice(&"::ffff:10.0.0.2".parse::<Ipv6Addr>().unwrap().octets());
            world.send(&[
                to([0xFF; 6]),
                to([2, 0, 0, 0, 0, 99]),
                to([1, 0, 0x5E, 0, 0, 1]),
                mapped,
            ]);
            world.send(&[v4.clone(), v6.clone()]);
            assert_eq!(world.receive(2), [v4, v6]);
            assert_eq!(world.steer.counters().unwrap().redirected_service, 2);
            world.close();
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_is_no_longer_wanted_is_no_longer_taken() {
        in_namespace(|| {
            let mut world = Scene::new();
            world.steer.register(0, world.port.as_fd()).unwrap();
            let wanted = steered(&[("10.0.0.1:80", UDP), ("10.0.0.1:80", TCP)], &[]);
            let synced = world.steer.sync(&wanted).unwrap();
            assert_eq!((synced.added, synced.removed), (1, 3));
            let syn = tcp(flow("10.0.0.2:1", "10.0.0.1:80"));
            let [v4, v6] = to_services().map(|flow| udp(flow, b"mine?"));
            world.send(&[v6, syn.clone(), v4.clone()]);
            assert_eq!(world.receive(2), [syn, v4]);
            world.steer.unregister(0).unwrap();
            world.steer.sync_locals(&[]).unwrap();
            assert_eq!(world.steer.sync(&Steered::default()).unwrap().removed, 2);
            world.close();
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_dropped_program_is_detached_and_a_second_one_refused() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            for mode in [XdpMode::Native, XdpMode::Generic] {
                let program = SteeringProgram::attach("a0", mode).unwrap();
                assert!(attached_program("a0"));
                for second in [XdpMode::Native, XdpMode::Generic] {
                    let refused = SteeringProgram::attach("a0", second).unwrap_err();
                    assert!(matches!(refused, AttachError::Taken { .. }), "{refused}");
                    assert!(refused.to_string().contains("ip link set dev a0 xdp off"));
                }
                drop(program);
                assert!(!attached_program("a0"));
            }
            let gone = SteeringProgram::attach("nosuch0", XdpMode::Native).unwrap_err();
            assert!(matches!(gone, AttachError::NoInterface { .. }));
            let mut program = SteeringProgram::attach("a0", XdpMode::Native).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            assert!(
                program.register(0, &socket).is_err(),
                "not an AF_XDP socket"
            );
            assert!(program.register(64, &socket).is_err(), "no such slot");
            program.unregister(3).unwrap();
        });
    }

    /// The other half of the test below: run by it, in its namespace, until it is killed.
    #[test]
    #[ignore = "is started and killed by a_killed_process_leaves_no_program"]
    fn holds_a_program_until_killed() {
        if std::env::var_os("HOLD_PROGRAM").is_none() {
            return;
        }
        let _program = SteeringProgram::attach("a0", XdpMode::Native).unwrap();
        let (_port, _pool) = open_one("a0");
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_killed_process_leaves_no_program() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--ignored",
                    "--exact",
                    "tests::holds_a_program_until_killed",
                ])
                .env("HOLD_PROGRAM", "1")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let appeared = (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                attached_program("a0")
            });
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(appeared);
            assert!(!attached_program("a0"));
            // And the queue is to be had again, though its release may take the kernel a moment.
            let (port, mut pool) = open_one("a0");
            close_all(vec![port], &mut pool);
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn modes_and_queues_that_cannot_be_are_refused_by_name() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            let zero_copy = Options {
                mode: BindMode::ZeroCopy,
                ..small()
            };
            let refused = open(&[queue("a0", 0)], &zero_copy).unwrap_err();
            assert!(matches!(
                refused,
                OpenError::Bind {
                    wanted: BoundMode::ZeroCopy,
                    ..
                }
            ));
            let refused = open(&[queue("a0", 40)], &small()).unwrap_err();
            assert!(refused.to_string().contains("ethtool -l a0"), "{refused}");
            let refused = open(&[queue("nosuch0", 0)], &small()).unwrap_err();
            assert!(
                matches!(refused, OpenError::NoInterface { .. }),
                "{refused}"
            );

            let holder = open_one("a0");
            let refused = open(&[queue("a0", 0)], &small()).unwrap_err();
            assert!(
                matches!(
                    refused,
                    OpenError::Busy {
                        waited_ms: 2000,
                        ..
                    }
                ),
                "{refused}"
            );
            assert!(refused.to_string().contains("ss --xdp"));
            drop(holder);
            let twice = open(&[queue("a0", 0), queue("a0", 0)], &small());
            assert!(twice.is_err());

            let options = Options {
                busy_poll: Some(BusyPoll::default()),
                ..small()
            };
            let (ports, mut pool) = open(&[queue("a0", 0)], &options).unwrap();
            assert_eq!(ports[0].bound().busy_poll, Some(BusyPoll::default()));
            assert!(ports[0].bound().send_buffer.is_some());
            close_all(ports, &mut pool);
        });
    }

    /// In whatever order and state ports are closed, every chunk comes home, and the queues are
    /// free for the next owner.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_chunk_comes_home() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            veth("b0", "b1", 1);
            let mut steer = SteeringProgram::attach("a0", XdpMode::Native).unwrap();
            steer.sync(&one_service()).unwrap();
            let (mut source, mut source_pool) = open_one("a1");
            let packets = vec![udp(flow("10.0.0.2:1", "10.0.0.1:80"), b"unread"); 20];
            for reversed in [false, true] {
                let (mut ports, mut pool) =
                    open(&[queue("a0", 0), queue("b0", 0)], &small()).unwrap();
                steer.register(0, ports[0].as_fd()).unwrap();
                send(&mut source, &mut source_pool, &packets);
                let mut batch = Batch::new();
                XskPort::wait(&mut ports, 1000);
                while batch.len() < 5 {
                    let mut five = Batch::new();
                    ports[0].receive(&mut pool, &mut five);
                    for frame in five.drain(..) {
                        if batch.len() < 5 {
                            batch.push(frame);
                        } else {
                            pool.give(frame);
                        }
                    }
                }
                send(&mut source, &mut source_pool, &packets);
                // Queued for B, and never kicked.
                assert_eq!(ports[1].transmit(&mut batch), 5);
                steer.unregister(0).unwrap();
                if reversed {
                    ports.reverse();
                }
                let closed: Vec<_> = ports
                    .into_iter()
                    .map(|port| port.close(&mut pool))
                    .collect();
                assert_eq!(closed.iter().map(|closed| closed.lost).sum::<usize>(), 0);
                assert_eq!(closed.iter().map(|closed| closed.unread).sum::<usize>(), 20);
                assert_eq!(closed.iter().map(|closed| closed.unsent).sum::<usize>(), 0);
                assert_eq!(pool.len(), pool.capacity());
                // Bound again while the old memory lives: the old sockets are really closed.
                let (again, mut other) = open(&[queue("a0", 0), queue("b0", 0)], &small()).unwrap();
                close_all(again, &mut other);
            }
            close_all(vec![source], &mut source_pool);
        });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_link_that_is_down_or_gone_is_counted_and_frames_survive() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            let mut steer = SteeringProgram::attach("a1", XdpMode::Native).unwrap();
            steer.sync(&one_service()).unwrap();
            let (mut port, mut pool) = open_one("a0");
            let (mut sink, mut sink_pool) = open_one("a1");
            steer.register(0, sink.as_fd()).unwrap();
            let packet = udp(flow("10.0.0.2:1", "10.0.0.1:80"), b"patient");

            ip("link set a0 down");
            send(&mut port, &mut pool, std::slice::from_ref(&packet));
            assert_eq!(port.counters().kick_down, 1);
            assert_eq!(port.transmitting(), 1, "still in the ring");
            XskPort::wait(std::slice::from_mut(&mut port), 1);
            ip("link set a0 up");
            let arrived = (0..500).any(|_| {
                port.kick();
                port.recycle(&mut pool);
                XskPort::wait(std::slice::from_mut(&mut sink), 5);
                port.transmitting() == 0
            });
            assert!(arrived);
            assert_eq!(
                receive(&mut sink, &mut sink_pool, 1),
                std::slice::from_ref(&packet)
            );

            // Longer than the MTU: the device drops it, completes it, and says EBUSY.
            let long = udp(flow("10.0.0.2:1", "10.0.0.1:80"), &[0; 1700]);
            send(&mut port, &mut pool, &[long]);
            port.recycle(&mut pool);
            assert_eq!((port.counters().kick_busy, port.transmitting()), (1, 0));

            ip("link del a0");
            send(&mut port, &mut pool, &[packet]);
            assert_eq!(port.counters().kick_gone, 1);
            let closed = port.close(&mut pool);
            assert_eq!((closed.unsent, closed.lost), (1, 0));
            assert_eq!(pool.len(), pool.capacity());
            close_all(vec![sink], &mut sink_pool);
        });
    }

    /// A receiver that does not stock its fill ring loses packets, and the kernel's counters say
    /// where.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn kernel_side_losses_are_told() {
        in_namespace(|| {
            veth("a0", "a1", 1);
            let mut steer = SteeringProgram::attach("a0", XdpMode::Native).unwrap();
            steer.sync(&one_service()).unwrap();
            let (mut source, mut source_pool) = open_one("a1");
            let (mut port, mut pool) = open_one("a0");
            steer.register(0, port.as_fd()).unwrap();
            let packets = vec![udp(flow("10.0.0.2:1", "10.0.0.1:80"), b"flood"); 32];
            let rings = small().rings;
            // More than the RX ring holds, nobody receiving.
            for _ in 0..(rings.rx / 32 + 2) {
                send(&mut source, &mut source_pool, &packets);
            }
            port.refresh_kernel_counters();
            assert_eq!(port.counters().rx_ring_full, 64);
            assert_eq!(
                receive(&mut port, &mut pool, rings.rx as usize).len(),
                rings.rx as usize
            );
            // Received, but never stocked again: after the fill ring's chunks there are none.
            let (mut batch, mut held) = (Batch::new(), Vec::new());
            for _ in 0..(rings.fill / 32 + 1) {
                send(&mut source, &mut source_pool, &packets);
                XskPort::wait(std::slice::from_mut(&mut port), 1);
                port.receive(&mut pool, &mut batch);
                held.extend(batch.drain(..));
            }
            port.refresh_kernel_counters();
            assert!(port.counters().fill_empty > 0);
            assert!(held.len() <= rings.fill as usize);
            held.drain(..).for_each(|frame| pool.give(frame));
            port.recycle(&mut pool);
            assert_eq!(port.stocked(), rings.fill as usize);
            send(&mut source, &mut source_pool, &packets[..BATCH / 4]);
            assert_eq!(
                receive(&mut port, &mut pool, BATCH / 4),
                packets[..BATCH / 4]
            );
            close_all(vec![port], &mut pool);
            close_all(vec![source], &mut source_pool);
        });
    }
}
