//! Message format (F).

mod classes;
