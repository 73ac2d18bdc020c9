//! How a check prints: its kind and what it asks, on one line.

use std::fmt;

use super::{Check, HttpCheck, TlsCheck, Verify};
use crate::error::quote;

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())?;
        match self {
            Self::Tcp | Self::Icmp => {}
            Self::Http(http) => http.say(f)?,
            Self::Https(http, _) => http.say(f)?,
            Self::Udp(exchange) => {
                write!(f, " send {}", bytes(&exchange.send))?;
                if let Some(expect) = &exchange.expect {
                    write!(f, " expect {}", bytes(expect))?;
                }
                write!(f, " silence {}", exchange.silence)?;
            }
            Self::Dns(dns) => {
                let name = quote(&dns.name);
                write!(f, " {name} {} {}", dns.record, dns.rcode)?;
                match &dns.expect {
                    None => {}
                    Some(super::DnsAnswer::Address(ip)) => write!(f, " expect {ip}")?,
                    Some(super::DnsAnswer::Text(text)) => write!(f, " expect {}", quote(text))?,
                }
            }
            Self::Grpc(grpc, _) => {
                write!(f, " service {}", quote(&grpc.service))?;
                if let Some(host) = &grpc.authority {
                    write!(f, " host {host}")?;
                }
            }
            Self::Script(script) => {
                write!(f, " {}", script.command.display())?;
                for argument in &script.arguments {
                    write!(f, " {}", quote(argument))?;
                }
            }
        }
        match self.tls() {
            Some(tls) => tls.say(f),
            None => Ok(()),
        }
    }
}

impl HttpCheck {
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} {}", self.method, quote(&self.path))?;
        if let Some(host) = &self.host {
            write!(f, " host {host}")?;
        }
        write!(f, " status {}", self.status)?;
        if let Some(body) = &self.body {
            write!(f, " body {} within {}", bytes(body), self.body_within)?;
        }
        Ok(())
    }
}

impl TlsCheck {
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.server_name {
            write!(f, " server-name {name}")?;
        }
        match &self.verify {
            Verify::System => f.write_str(" verify system")?,
            Verify::Nobody => f.write_str(" verify nobody")?,
            Verify::File(path) => write!(f, " verify {}", path.display())?,
        }
        if let Some(own) = &self.client {
            let (chain, key) = (own.chain.display(), own.key.display());
            write!(f, " certificate {chain} certificate-key {key}")?;
        }
        Ok(())
    }
}

fn bytes(bytes: &[u8]) -> String {
    quote(&bytes.escape_ascii().to_string())
}
