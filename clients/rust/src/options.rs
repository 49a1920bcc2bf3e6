//! How a client behaves towards its members: how long it waits for what, and whether it speaks TLS.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::error::Error;

/// How a client behaves towards its members. The defaults suit clusters within a continent.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take with all its attempts.
    pub request_timeout: Duration,
    /// How long one attempt may take when the call may be repeated: another member is asked after that.
    pub attempt_timeout: Duration,
    pub connect_timeout: Duration,
    /// How often a member is asked whether it is still there. With `ping_timeout` this is how long a connection that died in
    /// silence can go unnoticed by a watch.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// Whom to trust and what to show; None: no TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<tonic::transport::ClientTlsConfig>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            request_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(3),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

#[cfg(feature = "tls")]
impl Options {
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let secured = endpoint.tls_config(tls.clone().assume_http2(true));
        secured.map_err(|error| Error::Setup(format!("the TLS options are of no use: {error}")))
    }
}

#[cfg(not(feature = "tls"))]
impl Options {
    pub(crate) fn is_tls(&self) -> bool {
        false
    }

    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        Ok(endpoint)
    }
}
