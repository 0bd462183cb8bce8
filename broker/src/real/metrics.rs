//! A broker's numbers for Prometheus: its text format over HTTP, at any path, on an address of its own.
//! Start at `serve`. Not here: what is counted (`node::census`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::observer::CountingObserver;
use crate::node::{Census, Durations};

/// Where the numbers come from.
pub(super) struct Source {
    /// None once the node has ended.
    pub(super) census: Box<dyn Fn() -> Option<Census>>,
    pub(super) observer: CountingObserver,
}

/// Answers scrapes until it is dropped; must be called within a `LocalSet`.
pub(super) async fn serve(listener: TcpListener, source: Source) {
    let source = Rc::new(source);
    let places = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a scrape could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let source = source.clone();
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = respond(&request, &source);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            // With a timer, a peer that sends no request is let go after half a minute.
            let served =
                server.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a scrape ended early");
            }
            drop(place);
        });
    }
}

fn respond(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    let plain = |status, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if request.method() != hyper::Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned());
    }
    let Some(census) = (source.census)() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the broker is ending\n".to_owned());
    };
    match encode(census, source.observer.counts()) {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(FORMAT));
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn encode(census: Census, events: BTreeMap<&'static str, u64>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("mqassay");
    registry.register_collector(Box::new(Numbers { census, events }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Numbers {
    census: Census,
    events: BTreeMap<&'static str, u64>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Census { core, .. } = self.census;
        let counted = MetricType::Counter;
        let mut requests = encoder.encode_descriptor("requests", "Requests taken, by call.", None, counted)?;
        for (api, count) in &self.census.requests {
            let labels = [("api", format!("{api:?}"))];
            ConstCounter::new(*count).encode(requests.encode_family(&labels)?)?;
        }
        let mut events = encoder.encode_descriptor("events", "Events of the node, by name.", None, counted)?;
        for (name, count) in &self.events {
            ConstCounter::new(*count).encode(events.encode_family(&[("event", *name)])?)?;
        }
        let counters = [
            ("received", "Bytes received from connections.", Some(Unit::Bytes), self.census.received_bytes),
            ("sent", "Bytes sent to connections.", Some(Unit::Bytes), self.census.sent_bytes),
            ("appends", "Batches appended.", None, core.appends),
            ("appended", "Bytes of batches appended.", Some(Unit::Bytes), core.append_bytes),
            ("throttles", "Pauses of connections for want of memory.", None, self.census.throttles),
        ];
        for (name, help, unit, value) in counters {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), counted)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let throttled =
            encoder.encode_descriptor("throttled", "Length of the pauses.", Some(&Unit::Seconds), counted)?;
        ConstCounter::new(self.census.throttled.as_secs_f64()).encode(throttled)?;
        let gauges = [
            ("connections", "Open connections.", None, self.census.connections as u64),
            ("inflight", "Held by requests and answers.", Some(Unit::Bytes), self.census.inflight_bytes as u64),
            ("topics", "Topics.", None, core.topics as u64),
            ("queues", "Queues of all topics.", None, core.queues as u64),
            ("logs", "Logs.", None, core.logs as u64),
            ("log", "Between the start and the end of all logs.", Some(Unit::Bytes), core.log_bytes),
            ("fetch_sessions", "Open fetch sessions.", None, core.fetch_sessions as u64),
        ];
        for (name, help, unit, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(value as i64).encode(metric)?;
        }
        let help = "How long syncs of logs took.";
        let mut syncs = encoder.encode_descriptor("sync", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let Durations { counts, sum } = &self.census.syncs;
        let bounds = Durations::BOUNDS_US.map(|us| us as f64 / 1e6).into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        syncs.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), counts.iter().sum(), &buckets, None)
    }
}

/// The most scrapes at a time.
const SCRAPES_MAX: usize = 16;
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
