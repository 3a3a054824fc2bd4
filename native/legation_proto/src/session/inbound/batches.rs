//! A batch: whether it is new, who has signed it, and what of it is delivered (`protocol.md` 9).

use std::collections::HashMap;

use crate::error::{LinkError, PeerMisbehaved};
use crate::frame::batch::{kind, Batch, Header, Row};
use crate::frame::staged::StagedBatch;
use crate::frame::FrameType;
use crate::limits::RECEIPT_BYTES_MAX;
use crate::receipt::{ReceiptMaker, ReceiptParts};
use crate::session::attachment::LinkInbound;
use crate::session::certified::Certified;
use crate::session::delivery::{deliver, keep_reason, turn_away};
use crate::session::inbound::{Inbound, Place};
use crate::session::windows::Windows;
use crate::session::{Event, Session, Shared};
use crate::signing::Mode;
use crate::UnixMs;

impl Inbound {
    pub(super) fn handle_batch(
        &mut self,
        session: &Session,
        received: &mut LinkInbound,
        now: UnixMs,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, LinkError> {
        let shared = &session.shared;
        let Some(staged) = StagedBatch::parse(body)? else {
            let batch = Batch::parse_into(body, std::mem::take(&mut self.rows))?;
            let woken = match self.is_new_batch(shared, received, now, &batch.header, batch.count)? {
                true => self.handle_new_batch(session, now, body, &batch, sink)?,
                false => false,
            };
            self.rows = batch.into_rows();
            return Ok(woken);
        };
        // Where it comes again, its fragments were passed over, too.
        if !self.is_new_batch(shared, received, now, &staged.header, 1)? {
            return Ok(false);
        }
        let whole = self.staging.close(&staged)?;
        shared.counters.staged_bytes.set(self.staging.bytes() as u64);
        self.handle_new_batch(session, now, whole.body(), &Batch::parse(whole.body())?, sink)
    }

    fn is_new_batch(
        &mut self,
        shared: &Shared,
        received: &mut LinkInbound,
        now: UnixMs,
        header: &Header<'_>,
        count: u16,
    ) -> Result<bool, LinkError> {
        let counters = &shared.counters;
        if header.source != shared.agreed.peer || header.destination != shared.agreed.own {
            return Err(PeerMisbehaved::ForeignBatch.into());
        }
        if header.session != shared.agreed.session {
            counters.stale_session.one();
            self.failed(shared, now)?;
            return Ok(false);
        }
        match self.place(received, FrameType::Batch, Some(header.first_sequence), u64::from(count))? {
            Place::New => Ok(true),
            Place::Replayed => {
                counters.replayed.one();
                Ok(false)
            }
            Place::Duplicate => {
                counters.duplicate.one();
                self.failed(shared, now)?;
                Ok(false)
            }
        }
    }

    /// One that proves nothing.
    fn drop_batch(&mut self, session: &Session, now: UnixMs, batch: &Batch<'_>) -> Result<bool, LinkError> {
        // Its sender has used up credit for it.
        let mut windows = Windows::new(session);
        for item in batch.messages() {
            windows.take(&item);
        }
        drop(windows);
        self.failed(&session.shared, now)?;
        Ok(false)
    }

    /// `body`: as the signature is over it, with the signature.
    fn handle_new_batch(
        &mut self,
        session: &Session,
        now: UnixMs,
        body: &[u8],
        batch: &Batch<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, LinkError> {
        let (shared, counters) = (&session.shared, &session.shared.counters);
        let mode = batch.header.mode;
        if !shared.accepts(mode) {
            counters.mode_refused.one();
            return self.drop_batch(session, now, batch);
        }
        if mode == Mode::Checkpoint {
            // It is in the chain whatever becomes of it.
            self.proofs.add(now, batch.header.first_sequence, batch.count.into(), batch.signed)?;
            self.tell_open(shared);
        } else {
            counters.verified.one();
        }
        // The realm itself, and the modes in which it speaks for others, have the empty name.
        let engine = batch.header.engine;
        let certified = match engine {
            "" => self.online.as_mut(),
            _ => self.engines.get_mut(engine),
        };
        let proven = certified.is_some_and(|certified| {
            certified.in_force(now) && (mode == Mode::Checkpoint || certified.verifies(&shared.agreed.network, batch))
        });
        // Again, to be read beside the others.
        let certified = match engine {
            "" => self.online.as_ref(),
            _ => self.engines.get(engine),
        };
        let Some(certified) = certified.filter(|_| proven) else {
            counters.bad_signature.one();
            return self.drop_batch(session, now, batch);
        };
        let mut sources = Sources::new(&self.engines, batch, now);
        counters.batches_in.one();
        counters.messages_in.add(u64::from(batch.count));
        counters.payload_bytes_in.add((batch.signed.len() - batch.table_end) as u64);
        self.unacknowledged_bytes += batch.signed.len() as u64;
        let mut wake = false;
        let mut maker = None;
        let mut windows = Windows::new(session);
        for (index, item) in batch.messages().enumerate() {
            if !windows.take(&item) {
                counters.credit_exceeded.one();
                wake |= turn_away(session, &item);
                continue;
            }
            let Some(learn) = sources.learn(&item.row) else {
                counters.not_delegated.one();
                continue;
            };
            let receipt = match self.receipts_for.contains(item.row.destination) {
                true if batch.signature.is_none() || self.receipt_bytes >= RECEIPT_BYTES_MAX => {
                    counters.receipts_over_limit.one();
                    None
                }
                true => {
                    // Hashed once for all receipts of the batch, and only when there is one to make.
                    let maker = maker.get_or_insert_with(|| {
                        ReceiptMaker::new(ReceiptParts {
                            network_id: &shared.agreed.network.0,
                            identity_key: match batch.header.mode {
                                Mode::Engine => &certified.signer,
                                _ => self.identity.key(),
                            },
                            rotations: self.identity.chain(),
                            announcement: &certified.announcement,
                            batch: body,
                        })
                    });
                    maker.as_ref().ok().and_then(|maker| maker.make(index as u16, learn).ok())
                }
                false => None,
            };
            self.receipt_bytes += receipt.as_ref().map_or(0, Vec::len);
            wake |= match item.row.kind {
                kind::DOWN => keep_reason(session, &mut self.reasons, &item),
                _ => deliver(session, &item, receipt, sink),
            };
        }
        Ok(wake)
    }
}

/// Which sources of a batch may have said what is in it.
struct Sources<'a> {
    engines: &'a HashMap<Box<str>, Certified>,
    mode: Mode,
    now: UnixMs,
    /// By the place of the name; none: it has not been looked up yet.
    known: Vec<Option<Option<&'a Certified>>>,
}

impl<'a> Sources<'a> {
    fn new(engines: &'a HashMap<Box<str>, Certified>, batch: &Batch<'_>, now: UnixMs) -> Sources<'a> {
        let mode = batch.header.mode;
        let names = if mode == Mode::Engine { 0 } else { batch.names() };
        Sources { engines, mode, now, known: vec![None; names] }
    }

    /// What proves that the realm may speak for a row's source, for a receipt. None: it may not.
    fn learn(&mut self, row: &Row<'_>) -> Option<&'a [u8]> {
        // Who has signed the batch is who speaks.
        if self.mode == Mode::Engine || row.source.is_empty() {
            return Some(&[]);
        }
        let Sources { engines, now, .. } = *self;
        let look_up = || engines.get(row.source).filter(|engine| engine.delegate && engine.in_force(now));
        let engine = self.known[usize::from(row.source_place)].get_or_insert_with(look_up);
        engine.map(|engine| &*engine.announcement)
    }
}
