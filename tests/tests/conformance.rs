//! Every port's conformance suite on every backend. The real servers are named by `CHASKI_LOG`,
//! `CHASKI_STORE` and `CHASKI_COORDINATOR`; where one is missing its cases fail, they are never
//! skipped. `infra/local/backends.sh up` starts them and prints these variables.

#[path = "conformance/fixtures.rs"]
mod fixtures;

mod embedded {
    use chaski_ports_conformance as suites;

    suites::log_suite!(embedded, crate::fixtures::embedded_log);
    suites::messages_suite!(embedded, crate::fixtures::embedded_store);
    suites::chats_suite!(embedded, crate::fixtures::embedded_store);
    suites::connections_suite!(embedded, crate::fixtures::embedded_store);
    suites::devices_suite!(embedded, crate::fixtures::embedded_store);
    suites::checkpoints_suite!(embedded, crate::fixtures::embedded_store);
    suites::coordinator_suite!(embedded, crate::fixtures::embedded_coordinator);
}

mod kafka {
    chaski_ports_conformance::log_suite!(kafka, crate::fixtures::kafka_log);
}

mod cql {
    use chaski_ports_conformance as suites;

    suites::messages_suite!(cql, crate::fixtures::cql_store);
    suites::chats_suite!(cql, crate::fixtures::cql_store);
    suites::connections_suite!(cql, crate::fixtures::cql_store);
    suites::devices_suite!(cql, crate::fixtures::cql_store);
    suites::checkpoints_suite!(cql, crate::fixtures::cql_store);
}

mod zookeeper {
    chaski_ports_conformance::coordinator_suite!(zookeeper, crate::fixtures::zookeeper_coordinator);
}
