-- The care that a realm demands of those who remove, and what a task was told to spare.

ALTER TABLE removal_policy
    -- The shortest grace period of a removal of one entity.
    ADD COLUMN min_grace interval NOT NULL DEFAULT '0' CHECK (min_grace >= '0'),
    -- What a hard and a soft bulk delete must show to be started, as `entity::requirements` writes it.
    ADD COLUMN hard_delete jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(hard_delete) = 'object'),
    ADD COLUMN soft_delete jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(soft_delete) = 'object');

ALTER TABLE bulk_delete
    -- Whether nobody has found out yet if every attribute of the filter is there: it is found out before anything is deleted.
    ADD COLUMN check_attributes bool NOT NULL DEFAULT false,
    -- What the lists of ids came to when the task was asked for: counts, and the first ids.
    ADD COLUMN lists jsonb CHECK (jsonb_typeof(lists) = 'object');
