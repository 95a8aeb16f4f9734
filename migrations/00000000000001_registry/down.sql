DROP TABLE portfolio;
DROP TABLE attribute_index;
DROP TABLE dependent;
DROP TABLE entity;
DROP TABLE api_key;
DROP TABLE realm;
