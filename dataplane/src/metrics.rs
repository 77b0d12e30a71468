//! Prometheus metrics of all parts, in one registry.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry, TextEncoder,
};

/// The registry; clones are the same.
#[derive(Clone, Default)]
pub struct Metrics(Registry);

impl Metrics {
    /// A counter; names are Calico's where it has the metric.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    /// `buckets` are upper bounds in the metric's unit.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// Adds a metric of any other kind, such as one with labels.
    pub fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("names of metrics are literals of the right form");
        self.0.register(Box::new(metric.clone())).expect("each metric is added once");
        metric
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing into memory does not fail, and families of a registry are well formed.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut text);
        text
    }
}
