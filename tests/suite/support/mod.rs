//! What tests are made of: a gateway of their own with a real database and real sockets, and providers that do as told.

pub mod balancer;
pub mod cloud;
pub mod collector;
pub mod database;
pub mod fault_proxy;
pub mod gateway;
pub mod issuer;
pub mod numbers;
pub mod ports;
pub mod process;
pub mod provider;
pub mod receiver;
pub mod redis;
pub mod script;
pub mod vault;
pub mod world;

pub use gateway::TestGateway;
#[allow(unused_imports, reason = "a toolbox: each test takes what it needs")]
pub use provider::{Answer, Script, ScriptedProvider, Step, closed_port};
