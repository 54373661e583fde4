//! Whole command lines against a daemon that answers as it is told.
