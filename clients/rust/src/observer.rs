//! Who leads, as it goes on: every term and every vacancy once and in order, through any number of broken connections.

use tenure_proto::tenure::v1::election_event::Event;
use tenure_proto::tenure::v1::{ElectionEvent, ElectionObserveRequest};

use crate::client::Client;
use crate::election::elections;
use crate::error::Error;
use crate::feed::Feed;

/// What happens in an election.
///
/// ```no_run
/// use tenure_client::ElectionNews;
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let mut observer = client.election("db/main").observe();
/// loop {
///     match observer.next().await? {
///         ElectionNews::Started(term) => println!("epoch {}: {}", term.epoch, term.value),
///         ElectionNews::Vacant(_) => println!("nobody leads"),
///         other => println!("{other:?}"),
///     }
/// }
/// # }
/// ```
pub struct Observer {
    feed: Feed<ElectionObserveRequest, ElectionEvent>,
    /// The latest that was told; what is not later is told again after a reconnect, and passed over.
    told: Told,
}

/// How far an observer was told: in this order things happen to an election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    epoch: i64,
    /// 1: it started, 2: it ended, 3: nobody followed.
    step: u8,
}

impl Observer {
    pub(crate) fn new(client: Client, name: &str, from_epoch: i64) -> Observer {
        let request = ElectionObserveRequest { name: name.to_owned(), from_epoch };
        let feed = Feed::new(client, request, |channel, request| {
            Box::pin(async move { elections(channel).observe(request).await })
        });
        Observer { feed, told: Told::default() }
    }

    /// The next thing that happens. Waits for members to come back as long as it takes. Nothing is lost when this is dropped
    /// before it is done.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            match self.feed.next().await?.event {
                Some(event) if self.is_news(&event) => return Ok(event),
                _ => {}
            }
        }
    }

    /// Whether this was not told before. What is asked for after a reconnect begins with the epoch that was told last.
    fn is_news(&mut self, event: &Event) -> bool {
        let told = match event {
            Event::Started(term) => Told { epoch: term.epoch, step: 1 },
            Event::Ended(term) => Told { epoch: term.epoch, step: 2 },
            Event::Vacant(vacant) => Told { epoch: vacant.epoch, step: 3 },
            Event::Gap(gap) => Told { epoch: gap.to, step: 3 },
            // Values may be told twice: the later one counts.
            Event::Proclaimed(_) => return true,
            Event::Progress(_) => return false,
        };
        // An election that never had a leader is vacant at epoch 0.
        let news = told > self.told;
        if news {
            self.told = told;
            self.feed.question.from_epoch = told.epoch;
        }
        news
    }
}
