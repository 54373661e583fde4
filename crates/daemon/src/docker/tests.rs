//! What engines say, turned into our words.
