DELETE FROM bulk_delete_finding WHERE kind = 'removed_entity';
ALTER TABLE bulk_delete_finding
    DROP CONSTRAINT bulk_delete_finding_kind,
    ADD CONSTRAINT bulk_delete_finding_kind_check CHECK (kind IN ('orphan_dependent', 'portfolio_count', 'stuck_offboarding', 'orphan_request',
        'event_mismatch', 'attribute_index'));
