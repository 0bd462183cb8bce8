//! The experiments: the catalogue, the adapters that run broker nodes inside the simulated world, and what is done with
//! them: one run, a campaign over seeds, the mutants' table, replay. Start at `runner` for one run.
//! Not here: how a history is judged, or how the world works; both are the harness'.

pub mod adapter;
pub mod campaign;
pub mod catalogue;
pub mod coverage;
pub mod explain;
pub mod loss_matrix;
pub mod mutants;
pub mod race;
pub mod runner;
pub mod score_table;
pub mod shrink;
pub mod whitebox;
