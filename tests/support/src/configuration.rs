//! Configurations, told as sentences and written as the file that `ringgate run` reads.

use std::fmt;
use std::path::Path;

/// The interval of [`Service::checked`], milliseconds.
const CHECK_INTERVAL_MS: u64 = 200;

/// How many flows the balancer shall remember: several times what a test opens, and few enough
/// that a status, which counts them, costs a debug build nothing to speak of.
const FLOWS: usize = 65_536;

/// One server of a service.
#[derive(Debug, Clone)]
pub struct Backend {
    address: String,
    weight: u32,
    lines: Vec<String>,
}

impl Backend {
    /// At `address`, with the weight that the file's default is.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            weight: 100,
            lines: Vec::new(),
        }
    }

    /// With one more line of the file, as it is.
    #[must_use]
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// With another weight.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }
}

/// A service.
#[derive(Debug, Clone)]
#[must_use]
pub struct Service {
    name: String,
    listen: String,
    protocol: &'static str,
    forward: &'static str,
    choose: &'static str,
    is_checked: bool,
    check_port: Option<u16>,
    slow_start: &'static str,
    lines: Vec<String>,
    backends: Vec<Backend>,
}

impl Service {
    /// A TCP service by this name.
    pub fn tcp(name: &str, listen: &str) -> Self {
        Self {
            name: name.to_owned(),
            listen: listen.to_owned(),
            protocol: "tcp",
            forward: "nat",
            choose: "flow-hash",
            is_checked: false,
            check_port: None,
            slow_start: "0s",
            lines: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// A UDP service by this name.
    pub fn udp(name: &str, listen: &str) -> Self {
        Self {
            protocol: "udp",
            ..Self::tcp(name, listen)
        }
    }

    /// Whose backends answer clients directly.
    pub fn direct(self) -> Self {
        Self {
            forward: "dsr-l2",
            ..self
        }
    }

    /// Whose backends answer the balancer's own addresses ([`Configuration::sources`]).
    pub fn full_nat(self) -> Self {
        Self {
            forward: "full-nat",
            ..self
        }
    }

    /// Whose backends are the far ends of tunnels, with these keys of the `tunnel` table.
    pub fn tunnel(self, forward: &'static str, keys: &str) -> Self {
        Self { forward, ..self }.with(format!("tunnel = {{ {keys} }}"))
    }

    /// With one more line of the file, as it is.
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Whose new flows get their backend by this choice.
    pub fn choosing(self, choose: &'static str) -> Self {
        Self { choose, ..self }
    }

    /// Whose backends are checked every 200 ms, with a timeout of 200 ms, rise 2 and fall 2.
    pub fn checked(self) -> Self {
        Self {
            is_checked: true,
            ..self
        }
    }

    /// Checked as by [`Self::checked`], but at another port than the backends'.
    pub fn checked_at(self, port: u16) -> Self {
        Self {
            check_port: Some(port),
            ..self.checked()
        }
    }

    /// Whose backends take so long to their full share when they come back.
    pub fn slow_start(self, slow_start: &'static str) -> Self {
        Self { slow_start, ..self }
    }

    /// Which serves only this VLAN, as in the file: `100`, or `[200, 100]`.
    pub fn vlan(mut self, vlan: &'static str) -> Self {
        self.lines.push(format!("vlan = {vlan}"));
        self
    }

    /// With one more backend.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// With these backends of a playground, by number, at `port` (none with [`Self::direct`])
    /// of their address of this service's family.
    pub fn backends(mut self, numbers: impl IntoIterator<Item = u8>, port: u16) -> Self {
        for number in numbers {
            let address = match (self.listen.starts_with('['), self.forward != "dsr-l2") {
                (false, true) => format!("10.2.0.{}:{port}", 10 + number),
                (true, true) => format!("[fd00:2::{}]:{port}", 10 + number),
                (false, false) => format!("10.2.0.{}", 10 + number),
                (true, false) => format!("fd00:2::{}", 10 + number),
            };
            self.backends.push(Backend::at(address));
        }
        self
    }
}

impl Service {
    /// The longest that the checks of [`Service::checked`] may take to find a backend down, in
    /// milliseconds: fall × interval + timeout.
    pub const DOWN_WITHIN_MS: u64 = 2 * CHECK_INTERVAL_MS + CHECK_INTERVAL_MS;
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n[[service]]\nname = \"{}\"\nlisten = \"{}\"",
            self.name, self.listen
        )?;
        writeln!(
            f,
            "protocol = \"{}\"\nforward = \"{}\"\nchoose = \"{}\"",
            self.protocol, self.forward, self.choose
        )?;
        writeln!(f, "slow-start = \"{}\"", self.slow_start)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        if self.is_checked {
            let every = format!("{CHECK_INTERVAL_MS}ms");
            let port = self
                .check_port
                .map_or_else(String::new, |port| format!(", port = {port}"));
            writeln!(
                f,
                "health = {{ kind = \"tcp\", interval = \"{every}\", timeout = \"{every}\", \
                 rise = 2, fall = 2{port} }}"
            )?;
        }
        for backend in &self.backends {
            writeln!(
                f,
                "\n  [[service.backend]]\n  address = \"{}\"",
                backend.address
            )?;
            writeln!(f, "  weight = {}", backend.weight)?;
            for line in &backend.lines {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// A configuration for the node `lb`.
#[derive(Debug, Clone)]
#[must_use]
pub struct Configuration {
    mode: &'static str,
    drain: &'static str,
    flows: usize,
    flow_memory: Option<&'static str>,
    sources: &'static [&'static str],
    tables: String,
    services: Vec<Service>,
}

impl Configuration {
    /// Of native XDP, without services.
    pub fn native() -> Self {
        Self {
            mode: "copy",
            drain: "5s",
            flows: FLOWS,
            flow_memory: None,
            sources: &[],
            tables: String::new(),
            services: Vec::new(),
        }
    }

    /// Of generic XDP, without services.
    pub fn generic() -> Self {
        Self {
            mode: "generic",
            ..Self::native()
        }
    }

    /// Draining for this long before it stops.
    pub fn drain(self, drain: &'static str) -> Self {
        Self { drain, ..self }
    }

    /// With room for so many entries in the flow table.
    pub fn flows(self, flows: usize) -> Self {
        Self { flows, ..self }
    }

    /// With the flow table in private memory, not in a map as by default.
    pub fn private_flows(self) -> Self {
        Self {
            flow_memory: Some("private"),
            ..self
        }
    }

    /// With these addresses of the balancer's as sources of `full-nat`.
    pub fn sources(self, sources: &'static [&'static str]) -> Self {
        Self { sources, ..self }
    }

    /// With these lines in the table `[metrics]`.
    pub fn metrics(self, metrics: &str) -> Self {
        self.table(&format!("[metrics]\n{metrics}"))
    }

    /// With one more table of the file, as it is.
    pub fn table(mut self, text: &str) -> Self {
        self.tables += &format!("\n{text}\n");
        self
    }

    /// With one more service.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// With a checked web service for each family and mode over the given backends' nginx:
    /// `web4`, `web6`, `direct4`, `direct6`.
    pub fn web(self, backends: impl IntoIterator<Item = u8>) -> Self {
        let numbers: Vec<u8> = backends.into_iter().collect();
        let over = |service: Service| service.checked().backends(numbers.iter().copied(), 8080);
        self.service(over(Service::tcp("web4", "10.100.0.1:80")))
            .service(over(Service::tcp("web6", "[fd00:100::1]:80")))
            .service(over(Service::tcp("direct4", "10.100.0.2:80").direct()))
            .service(over(Service::tcp("direct6", "[fd00:100::2]:80").direct()))
    }

    /// The mode that every interface asks for.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        self.mode
    }

    /// The file, for a balancer whose admin socket is `admin`.
    #[must_use]
    pub fn text(&self, admin: &Path) -> String {
        let mut text = String::from("[balancer]\n");
        text += &format!("admin = \"{}\"\n", admin.display());
        text += &format!("drain = \"{}\"\nflows = {}\n", self.drain, self.flows);
        if let Some(word) = self.flow_memory {
            text += &format!("flow-memory = \"{word}\"\n");
        }
        if !self.sources.is_empty() {
            text += &format!("nat-sources = {:?}\n", self.sources);
        }
        text += &self.tables;
        for name in ["front", "back"] {
            text += &format!(
                "\n[[interface]]\nname = \"{name}\"\nmode = \"{}\"\n",
                self.mode
            );
        }
        for service in &self.services {
            text += &service.to_string();
        }
        text
    }
}
