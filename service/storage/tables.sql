-- The tables of a new SQLite database, as all migrations leave them. Made by: python -m tests.storage.make_tables
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE client (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE consent (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE delivery (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    client_id VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE device (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    client_id VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE interaction (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE invitation (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE key_ring (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE oauth_grant (
    id_hash VARCHAR(32) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    client_id VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    outlives_session BOOLEAN NOT NULL,
    tokens BLOB NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE provider_session (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE replay_marker (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE session (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE status (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE user_record (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE verifier (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    grant_id VARCHAR(64) NOT NULL,
    session_id VARCHAR(64) DEFAULT '' NOT NULL,
    spent_at BIGINT,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    client_id VARCHAR(255) DEFAULT '' NOT NULL,
    version BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE TABLE visit (
    id_hash VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    client_id VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id_hash)
);
CREATE INDEX ix_client_client_id ON client (client_id);
CREATE INDEX ix_client_expires_at ON client (expires_at);
CREATE INDEX ix_client_grant_id ON client (grant_id);
CREATE INDEX ix_client_session_id ON client (session_id);
CREATE INDEX ix_client_subject ON client (subject);
CREATE INDEX ix_consent_client_id ON consent (client_id);
CREATE INDEX ix_consent_expires_at ON consent (expires_at);
CREATE INDEX ix_consent_grant_id ON consent (grant_id);
CREATE INDEX ix_consent_session_id ON consent (session_id);
CREATE INDEX ix_consent_subject ON consent (subject);
CREATE INDEX ix_delivery_client_id ON delivery (client_id);
CREATE INDEX ix_delivery_due_at ON delivery (due_at);
CREATE INDEX ix_delivery_expires_at ON delivery (expires_at);
CREATE INDEX ix_delivery_subject ON delivery (subject, session_id);
CREATE INDEX ix_device_client_id ON device (client_id);
CREATE INDEX ix_device_expires_at ON device (expires_at);
CREATE INDEX ix_device_subject ON device (subject, session_id);
CREATE INDEX ix_interaction_expires_at ON interaction (expires_at);
CREATE INDEX ix_interaction_grant_id ON interaction (grant_id);
CREATE INDEX ix_interaction_session_id ON interaction (session_id);
CREATE INDEX ix_interaction_subject ON interaction (subject);
CREATE INDEX ix_invitation_expires_at ON invitation (expires_at);
CREATE INDEX ix_invitation_subject ON invitation (subject);
CREATE INDEX ix_key_ring_expires_at ON key_ring (expires_at);
CREATE INDEX ix_key_ring_grant_id ON key_ring (grant_id);
CREATE INDEX ix_key_ring_session_id ON key_ring (session_id);
CREATE INDEX ix_key_ring_subject ON key_ring (subject);
CREATE INDEX ix_oauth_grant_client_id ON oauth_grant (client_id);
CREATE INDEX ix_oauth_grant_subject ON oauth_grant (subject, session_id);
CREATE INDEX ix_provider_session_expires_at ON provider_session (expires_at);
CREATE INDEX ix_provider_session_grant_id ON provider_session (grant_id);
CREATE INDEX ix_provider_session_session_id ON provider_session (session_id);
CREATE INDEX ix_provider_session_subject ON provider_session (subject);
CREATE INDEX ix_replay_marker_expires_at ON replay_marker (expires_at);
CREATE INDEX ix_replay_marker_grant_id ON replay_marker (grant_id);
CREATE INDEX ix_replay_marker_session_id ON replay_marker (session_id);
CREATE INDEX ix_replay_marker_subject ON replay_marker (subject);
CREATE INDEX ix_session_expires_at ON session (expires_at);
CREATE INDEX ix_session_grant_id ON session (grant_id);
CREATE INDEX ix_session_session_id ON session (session_id);
CREATE INDEX ix_session_subject ON session (subject);
CREATE INDEX ix_status_expires_at ON status (expires_at);
CREATE INDEX ix_status_subject ON status (subject);
CREATE INDEX ix_user_record_expires_at ON user_record (expires_at);
CREATE INDEX ix_user_record_grant_id ON user_record (grant_id);
CREATE INDEX ix_user_record_session_id ON user_record (session_id);
CREATE INDEX ix_user_record_subject ON user_record (subject);
CREATE INDEX ix_verifier_expires_at ON verifier (expires_at);
CREATE INDEX ix_verifier_grant_id ON verifier (grant_id);
CREATE INDEX ix_verifier_session_id ON verifier (session_id);
CREATE INDEX ix_verifier_subject ON verifier (subject);
CREATE INDEX ix_visit_client_id ON visit (client_id);
CREATE INDEX ix_visit_expires_at ON visit (expires_at);
CREATE INDEX ix_visit_subject ON visit (subject, session_id);
INSERT INTO alembic_version VALUES ('0008')
