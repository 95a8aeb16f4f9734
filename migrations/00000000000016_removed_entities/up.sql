-- A check of consistency tells of entities that are there although they were removed.
ALTER TABLE bulk_delete_finding
    DROP CONSTRAINT bulk_delete_finding_kind_check,
    ADD CONSTRAINT bulk_delete_finding_kind CHECK (kind IN ('orphan_dependent', 'portfolio_count', 'stuck_offboarding',
        'removed_entity', 'orphan_request', 'event_mismatch', 'attribute_index'));
