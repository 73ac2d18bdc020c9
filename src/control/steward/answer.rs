//! What is asked through the admin socket, and what is answered.

use std::time::Instant;

use ringgate_dataplane::clock::Clock as _;

use super::flush::Flushing;
use super::report;
use super::{Steward, Token};
use crate::control::admin::http::{Request, Response};
use crate::control::admin::{AdminToken, Answer, Wanted};
use crate::control::driver::Outcome;
use crate::control::status::Page;
use crate::explanation::{Question, explain};

impl Steward {
    pub(super) fn answer(&mut self, token: AdminToken, outcome: Outcome, now: Instant) {
        let mut wanted = Vec::new();
        // The handler needs all but the admin socket itself.
        let admin = self.admin.path().to_owned();
        let page = Page {
            config: &self.config.display().to_string(),
            model: &self.model,
            snapshot: &self.snapshot,
            plane: &self.plane,
            checker: &self.checker,
            watcher: &self.watcher,
            meter: &self.meter,
            driver: self.driver.kind(),
            operations: self.driver.in_flight(),
            admin: &admin,
            flushed: self.flushed,
            now: self.clock.now().seconds(),
            at: now,
            uptime_ms: u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX),
        };
        let time = self.clock.now();
        let seconds = time.seconds();
        let flush = &mut self.flush;
        let mut reported = Vec::new();
        let mut handler = |request: &Request<'_>, key| {
            let response = match (request.method, request.path) {
                ("GET", "/v1/status") => Response::ok(page.to_json()),
                ("GET", "/v1/explain") => match question(request) {
                    Ok(question) => {
                        Response::ok(explain(&question, page.snapshot, page.plane.tables(), time))
                    }
                    Err(message) => Response::error(400, message),
                },
                ("POST", "/v1/flush") if flush.is_some() => Response::error(
                    409,
                    "another flush is under way: ask again when it has ended",
                ),
                ("POST", "/v1/flush") => {
                    match Flushing::begin(request, key, page.snapshot, seconds) {
                        Ok(begun) => {
                            *flush = Some(begun);
                            return Answer::Later;
                        }
                        Err(refusal) => refusal,
                    }
                }
                ("POST", "/v1/report") => match report::read(request, page.model) {
                    Ok(report) => {
                        reported.push(report);
                        Response::ok(serde_json::json!({ "taken": true }))
                    }
                    Err(refusal) => refusal,
                },
                ("GET" | "POST", "/v1/status" | "/v1/explain" | "/v1/flush" | "/v1/report") => {
                    let message = "GET /v1/status and /v1/explain, POST /v1/flush and /v1/report";
                    Response::error(405, message)
                }
                ("GET" | "POST", _) => {
                    let message = "there are /v1/status, /v1/explain, /v1/flush and /v1/report";
                    Response::error(404, message)
                }
                _ => Response::error(405, "only GET and POST are understood"),
            };
            Answer::Now(response)
        };
        self.admin
            .completed(token, outcome, now, &mut handler, &mut wanted);
        self.admin.pump(&mut wanted);
        self.start_wanted(&mut wanted);
        for report in reported {
            self.take_report(&report, now);
        }
    }

    pub(super) fn start_wanted(&mut self, wanted: &mut Vec<Wanted>) {
        for Wanted {
            operation,
            limit,
            token,
        } in wanted.drain(..)
        {
            if let Err(refused) = self.driver.start(operation, limit, Token::Admin(token)) {
                self.admin.refused(token, refused.operation);
            }
        }
    }
}

/// Reads the flow that `explain` asks about.
fn question(request: &Request<'_>) -> Result<Question, &'static str> {
    let protocol = match request.parameter("protocol").as_deref() {
        Some("tcp") => 6,
        Some("udp") => 17,
        _ => return Err("protocol must be tcp or udp"),
    };
    let socket = |name, message| {
        request
            .parameter(name)
            .and_then(|text| text.parse().ok())
            .ok_or(message)
    };
    Ok(Question {
        protocol,
        from: socket("from", "from must be the client's ADDRESS:PORT")?,
        to: socket("to", "to must be the service's ADDRESS:PORT")?,
    })
}
