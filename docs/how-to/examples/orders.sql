CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, email text NOT NULL);
