//! Networks of other people's plugins: what is asked of a plugin and when, packets in its networks, and that nothing is
//! left when it fails.

mod fails;
mod ipam;
mod life;
mod own;
mod scene;
mod way_out;

/// What a plugin may do instead of answering at once, and what is told of it.
fn fails_words() -> &'static [(&'static str, &'static str)] {
    &fails::MISDEEDS[..4]
}
