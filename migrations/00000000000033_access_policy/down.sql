DROP TABLE access_policy;
