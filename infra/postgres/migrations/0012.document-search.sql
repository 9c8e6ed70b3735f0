-- depends: 0011.documents
-- What is searched by words, where there are no vectors. The words as they are: documents are in any language.
CREATE INDEX document_chunk_words ON document_chunk USING gin (to_tsvector('simple', text));
