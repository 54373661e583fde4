//! Steps about names.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{PAGE, Scenario};
use crate::demo::steps::View;

/// Longest that a question waits for a daemon that is away.
const QUESTION_LIMIT: Duration = Duration::from_secs(15);

impl Scenario<'_> {
    /// Finds sandboxes by name, as programs do.
    pub(super) fn named(&mut self) -> Result<()> {
        self.steps.step("They find each other by name");
        let file = self.tombolo("exec app cat /etc/resolv.conf");
        let view = View::With(&["nameserver", "# Name servers"]);
        self.must("a resolver answers inside every sandbox", view, file)?;
        let hosts = self.tombolo("exec app getent hosts www");
        let found = self.must("the C library finds www", View::All, hosts)?;
        self.steps
            .check("at its address", found.starts_with("fd80::2"));
        let curl = self.tombolo("exec app curl -sS --max-time 5 http://www.web/");
        let page = self.must("a name may say its network", View::All, curl)?;
        self.steps.check("the page is the one of www", page == PAGE);
        let reverse = self.tombolo("dns resolve 10.90.0.2 --from app");
        let name = self.must("an address has a name", View::All, reverse)?;
        self.steps
            .check("the one on its network", name.contains("echo.back."));
        let stranger = self.tombolo("dns resolve echo --from www");
        self.must_fail("who is not on that network is told of no echo", stranger)?;
        let list = self.tombolo("dns ls");
        self.must("these are all names", View::All, list)?;
        Ok(())
    }

    /// Asks for a name while there is no daemon; what starts the next one is given.
    pub(super) fn asked_meanwhile(
        &mut self,
        start: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut ask = self.tombolo("--no-autostart exec app getent ahostsv4 www");
        self.steps
            .note("a program asks for a name while no daemon answers");
        self.steps.typed("tombolo exec app getent ahostsv4 www &");
        let asked = Instant::now();
        let child = ask
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot ask for a name")?;
        start(self)?;
        let output = child.wait_with_output().context("the question is lost")?;
        let found = String::from_utf8_lossy(&output.stdout).contains("10.80.0.2");
        self.steps.check(
            "its question has waited and is answered",
            output.status.success() && found && asked.elapsed() < QUESTION_LIMIT,
        );
        Ok(())
    }
}
