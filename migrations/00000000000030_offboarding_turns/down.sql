DROP INDEX CONCURRENTLY IF EXISTS offboarding_request_turn;
