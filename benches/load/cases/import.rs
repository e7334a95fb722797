//! `import`: `tidings import` of new people, against COPY of the same rows into the like of the same tables.

use std::path::PathBuf;

use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::stage::Stage;
use crate::store::Store;
use crate::{Outcome, filled, people};

const EMPTY: &str = "import_empty";
const COPY: &str = "import_run";

pub(super) struct Import<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    file: PathBuf,
    /// The tables that the last run filled; its database stands until the next.
    tables: Vec<String>,
}

impl<'a> Import<'a> {
    pub(super) fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let store = stage.on_postgres();
        stage.program.migrate(&store.create(EMPTY)?)?;
        let file = people::recipients(stage.folder(), stage.options.people)?;
        Ok(Self { stage, store, file, tables: Vec::new() })
    }
}

impl Trial for Import<'_> {
    fn name(&self) -> String {
        format!("import of {}", self.stage.options.people)
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("recipients", "recipients", Unit::PerSecond)
                .against("COPY")
                .limit(Limit::Least(0.35)),
            Line::plain("peak memory of tidings import", "peak", Unit::Megabytes).limit(Limit::Most(150.0)),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let people = self.stage.options.people;
        let url = self.store.copy(EMPTY, COPY)?;
        let before = filled::counts(&self.stage.postgres, COPY)?;
        let imported = self.stage.program.import(&url, &self.file, people).await?;
        let after = filled::counts(&self.stage.postgres, COPY)?;
        self.tables = filled::filled(&before, &after, people / 2);
        println!("  tables filled: {}", self.tables.join(", "));
        Ok(Values::from([
            ("recipients", people as f64 / imported.took.as_secs_f64()),
            ("peak", imported.peak_mb),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        let took = filled::copied(&self.stage.postgres, COPY, &self.tables)?;
        let rate = self.stage.options.people as f64 / took.as_secs_f64();
        Ok(Values::from([("COPY", rate)]))
    }
}
