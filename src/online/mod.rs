//! Learning from answers drawn by the policy itself (survey §3.1).
