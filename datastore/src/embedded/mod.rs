//! One host store.
