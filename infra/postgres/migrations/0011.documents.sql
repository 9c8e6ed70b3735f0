-- depends: 0010.notification-edits
-- What the ingestion-worker has read: a document, its pages, and the pieces of text that are searched.
CREATE TABLE document (
    tenant_id           text        NOT NULL,
    document_id         text        NOT NULL,
    -- Where it came from, without login, query and fragment.
    source              text        NOT NULL,
    user_id             text,
    state               text        NOT NULL CHECK (state IN ('reading', 'awaiting_ocr', 'read', 'failed')),
    -- Whose result counts: the last job that began. Whoever lost this writes nothing any more.
    claim               text        NOT NULL,
    -- The bytes that were read and the pipeline that read them: the same both times is the same work.
    sha256              bytea,
    pipeline            text,
    bytes               bigint,
    media_type          text,
    language            text,
    metadata            jsonb       NOT NULL DEFAULT '{}',
    pages               integer,
    characters          bigint,
    chunks              integer,
    -- Why it could not be read, or no further than this.
    problem             text,
    explanation         text,
    -- Of its chunks, when they are embedded.
    embedding_model     text,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_at             timestamptz,
    embedded_at         timestamptz,
    PRIMARY KEY (tenant_id, document_id)
);
-- The same file under another name.
CREATE INDEX document_content ON document (tenant_id, sha256, pipeline) WHERE state = 'read';
CREATE INDEX document_changed ON document (changed_at);

CREATE TABLE document_page (
    tenant_id           text        NOT NULL,
    document_id         text        NOT NULL,
    number              integer     NOT NULL,
    text                text        NOT NULL,
    origin              text        NOT NULL CHECK (origin IN ('text', 'ocr', 'none')),
    ocr_reason          text,
    confidence          real,
    PRIMARY KEY (tenant_id, document_id, number),
    FOREIGN KEY (tenant_id, document_id) REFERENCES document ON DELETE CASCADE
);

CREATE TABLE document_chunk (
    tenant_id           text        NOT NULL,
    document_id         text        NOT NULL,
    number              integer     NOT NULL,
    text                text        NOT NULL,
    tokens              integer     NOT NULL,
    first_page          integer     NOT NULL,
    last_page           integer     NOT NULL,
    headings            text[]      NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, document_id, number),
    FOREIGN KEY (tenant_id, document_id) REFERENCES document ON DELETE CASCADE
);
