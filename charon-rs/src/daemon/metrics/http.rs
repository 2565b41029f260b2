//! The place where Prometheus fetches the page.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::daemon::service::Daemon;
use crate::daemon::web::{Answer, Client, Site, status};

/// The format of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`, and nothing else.
pub(in crate::daemon) struct Page(pub(in crate::daemon) Arc<Daemon>);

impl Site for Page {
    const NAME: &'static str = "metrics";

    async fn answer(&self, request: Request<Incoming>, _: Client) -> Answer {
        if request.uri().path() != "/metrics" {
            return status(StatusCode::NOT_FOUND);
        }
        if request.method() != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        match super::page(&self.0).await {
            Ok(page) => {
                let mut response = Response::new(Full::from(page));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                response
            }
            Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}
