DROP TABLE attribute_declaration;
DELETE FROM attribute_index;
