//! Rows of values as a relation inside a statement.
//!
//! However many rows there are, the statement's text stays the same, so that the database plans it once: on PostgreSQL each
//! column is one array, on SQLite all rows are one JSON array.

use std::fmt::Write as _;

use sea_orm::{DbBackend, Value};
use uuid::Uuid;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A UUID.
    Uuid,
    /// Octets.
    Bytes,
    /// A 64-bit integer.
    Int,
    /// Text.
    Text,
    /// True or false.
    Bool,
    /// JSON, given as text.
    Json,
}

impl Kind {
    fn postgres(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Bytes => "bytea",
            Self::Int => "bigint",
            Self::Text => "text",
            Self::Bool => "boolean",
            Self::Json => "jsonb",
        }
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// NULL.
    Null,
    /// A UUID.
    Uuid(Uuid),
    /// Octets.
    Bytes(Vec<u8>),
    /// A 64-bit integer.
    Int(i64),
    /// Text, or JSON as text; without NUL.
    Text(String),
    /// True or false.
    Bool(bool),
}

macro_rules! cells {
    ($($from:ty => $to:ident),*) => {$(
        impl From<$from> for Cell {
            fn from(value: $from) -> Self {
                Self::$to(value.into())
            }
        }
    )*};
}

cells!(Uuid => Uuid, Vec<u8> => Bytes, i64 => Int, String => Text, &str => Text, bool => Bool);

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A relation made of values.
#[derive(Clone, Debug)]
pub struct List<const N: usize> {
    columns: [(&'static str, Kind); N],
    rows: Vec<[Cell; N]>,
}

impl List<1> {
    /// A relation of one column and these rows.
    pub fn of<T: Into<Cell>>(name: &'static str, kind: Kind, cells: impl IntoIterator<Item = T>) -> Self {
        Self { columns: [(name, kind)], rows: cells.into_iter().map(|cell| [cell.into()]).collect() }
    }
}

impl<const N: usize> List<N> {
    /// A relation of these columns without rows.
    pub fn new(columns: [(&'static str, Kind); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The relation under this name, to stand in a FROM; its values are appended to `values`, which hold what the statement
    /// binds before it.
    pub fn relation(&self, backend: DbBackend, name: &str, values: &mut Vec<Value>) -> String {
        let first = values.len() + 1;
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        if backend == DbBackend::Postgres {
            let mut arrays = Vec::with_capacity(N);
            for (n, (_, kind)) in self.columns.iter().enumerate() {
                arrays.push(format!("CAST(${} AS {}[])", first + n, kind.postgres()));
                values.push(self.array(n).into());
            }
            return format!("unnest({}) AS {name} ({})", arrays.join(", "), names.join(", "));
        }
        values.push(self.json().into());
        let column = |(n, (name, kind)): (usize, &(&str, Kind))| match kind {
            Kind::Uuid | Kind::Bytes => format!("unhex(e.value ->> {n}) AS {name}"),
            _ => format!("e.value ->> {n} AS {name}"),
        };
        let columns: Vec<String> = self.columns.iter().enumerate().map(column).collect();
        // The LIMIT keeps each value from being taken out of the JSON again wherever the statement names it.
        format!("(SELECT {} FROM json_each(${first}) AS e LIMIT -1) AS {name}", columns.join(", "))
    }

    /// A column as PostgreSQL writes an array.
    fn array(&self, column: usize) -> String {
        let mut text = String::with_capacity(2 + self.rows.len() * 40);
        text.push('{');
        for (n, row) in self.rows.iter().enumerate() {
            if n > 0 {
                text.push(',');
            }
            // Writing to a String does not fail.
            let _ = match &row[column] {
                Cell::Null => write!(text, "NULL"),
                Cell::Uuid(id) => write!(text, "{id}"),
                Cell::Int(int) => write!(text, "{int}"),
                Cell::Bool(yes) => write!(text, "{yes}"),
                Cell::Bytes(bytes) => {
                    text.push_str("\"\\\\x");
                    text.push_str(&hex::encode(bytes));
                    write!(text, "\"")
                }
                Cell::Text(words) => {
                    text.push('"');
                    for c in words.chars() {
                        if matches!(c, '"' | '\\') {
                            text.push('\\');
                        }
                        text.push(c);
                    }
                    write!(text, "\"")
                }
            };
        }
        text.push('}');
        text
    }

    fn json(&self) -> String {
        let cell = |cell: &Cell| match cell {
            Cell::Null => serde_json::Value::Null,
            Cell::Uuid(id) => hex::encode(id.as_bytes()).into(),
            Cell::Bytes(bytes) => hex::encode(bytes).into(),
            Cell::Int(int) => (*int).into(),
            Cell::Text(words) => words.clone().into(),
            Cell::Bool(yes) => (*yes).into(),
        };
        let rows: Vec<Vec<serde_json::Value>> =
            self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        serde_json::Value::from(rows).to_string()
    }
}
