-- Vectors of pieces of text. `intelliflow migrate` runs this where it finds pgvector on the server, and again when this
-- file has changed, so every statement must bear being repeated. Without it everything but the search by meaning works.
CREATE EXTENSION IF NOT EXISTS vector;

-- A row is right as long as `digest` is the SHA-256 of the piece's text: whoever searches compares the two, so a row that
-- outlives its text is never found, and gives its vector to the same text of the same tenant wherever that turns up.
CREATE TABLE IF NOT EXISTS document_vector (
    tenant_id           text        NOT NULL,
    document_id         text        NOT NULL,
    -- The model and its revision: vectors of two models cannot be compared.
    model               text        NOT NULL,
    number              integer     NOT NULL,
    digest              bytea       NOT NULL CHECK (length(digest) = 32),
    dimensions          integer     NOT NULL CHECK (dimensions = vector_dims(embedding)),
    embedding           halfvec     NOT NULL,
    PRIMARY KEY (tenant_id, document_id, model, number, digest),
    FOREIGN KEY (tenant_id, document_id) REFERENCES document ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS document_vector_digest ON document_vector (tenant_id, model, digest);

-- An index of this kind holds vectors of one length. Vectors of other lengths are searched one by one.
CREATE INDEX IF NOT EXISTS document_vector_256 ON document_vector
    USING hnsw ((embedding::halfvec(256)) halfvec_cosine_ops) WHERE dimensions = 256;
CREATE INDEX IF NOT EXISTS document_vector_384 ON document_vector
    USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops) WHERE dimensions = 384;
CREATE INDEX IF NOT EXISTS document_vector_512 ON document_vector
    USING hnsw ((embedding::halfvec(512)) halfvec_cosine_ops) WHERE dimensions = 512;
CREATE INDEX IF NOT EXISTS document_vector_768 ON document_vector
    USING hnsw ((embedding::halfvec(768)) halfvec_cosine_ops) WHERE dimensions = 768;
CREATE INDEX IF NOT EXISTS document_vector_1024 ON document_vector
    USING hnsw ((embedding::halfvec(1024)) halfvec_cosine_ops) WHERE dimensions = 1024;
CREATE INDEX IF NOT EXISTS document_vector_1536 ON document_vector
    USING hnsw ((embedding::halfvec(1536)) halfvec_cosine_ops) WHERE dimensions = 1536;
CREATE INDEX IF NOT EXISTS document_vector_3072 ON document_vector
    USING hnsw ((embedding::halfvec(3072)) halfvec_cosine_ops) WHERE dimensions = 3072;
