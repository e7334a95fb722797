//! `machine`: what the machine does without Tidings, for whoever compares two of them.

use crate::Outcome;
use crate::chain;
use crate::measure::{Line, Trial, Unit, Values};
use crate::sink::Sink;
use crate::stage::Stage;
use crate::yardstick::{copied_rows, openssl, single_rows, smtp_source};

pub(super) struct Machine<'a> {
    stage: &'a Stage,
}

impl<'a> Machine<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        Self { stage }
    }
}

impl Trial for Machine<'_> {
    fn name(&self) -> String {
        "machine".to_owned()
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("smtp-source to smtp-sink, a core each", "smtp-source", Unit::PerSecond),
            Line::plain("chain without a database", "chain", Unit::PerSecond),
            Line::plain("chain, CPU a message", "chain CPU", Unit::Micros),
            Line::plain("chain, octets of a message", "octets", Unit::Count),
            Line::plain("chain, signed by RSA-2048 and Ed25519", "chain signed", Unit::PerSecond),
            Line::plain("openssl speed -multi 2 rsa2048", "openssl rsa2048", Unit::PerSecond),
            Line::plain("openssl speed -multi 2 ed25519", "openssl ed25519", Unit::PerSecond),
            Line::plain("pgbench, rows committed one by one, 32 clients", "pgbench", Unit::PerSecond),
            Line::plain("COPY, rows", "COPY", Unit::PerSecond),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let stage = self.stage;
        let sink = Sink::start(stage.folder())?;
        let unsigned = chain::measured(&sink.relay_url(), stage.yardstick_messages(), false)?;
        let signed = chain::measured(&sink.relay_url(), stage.yardstick_messages() / 4, true)?;
        Ok(Values::from([
            ("smtp-source", smtp_source(stage)?),
            ("chain", unsigned.rate),
            ("chain CPU", unsigned.cpu_us),
            ("octets", unsigned.octets),
            ("chain signed", signed.rate),
            ("openssl rsa2048", openssl("rsa2048")?),
            ("openssl ed25519", openssl("ed25519")?),
            ("pgbench", single_rows(&stage.postgres)?),
            ("COPY", copied_rows(&stage.postgres, stage.options.people)?),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        Ok(Values::new())
    }
}
