//! Erlang distribution without sockets, from outside: generated values, recorded frames, and `erl_dist` as a second opinion.

mod control;
mod differential;
mod fragments;
mod inbound;
mod outbound;
mod recorded;
mod standalone;
mod support;
mod term;
