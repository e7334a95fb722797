//! Message format (F).
