"""OBJ files."""

import pytest

from services.common.face.loaders.obj import read_obj, read_obj_vertices


def test_quadrilaterals_normals_and_numbers_from_the_end_are_read(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(
        "o thing\nv 0 0 0\nv 1 0 0\nv 1 1 0 1.0\nv 0 1 0\nvn 0 0 1\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nf 1/1/1 2/2/1 3/3/1 4/3/1\nf -4/1 -3/2 -2/3\n"
    )
    mesh = read_obj(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    assert mesh.uv_triangles.tolist() == [[0, 1, 2], [0, 2, 2], [0, 1, 2]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert read_obj_vertices(path).tolist() == mesh.vertices.tolist()


def test_a_mesh_without_texture_has_none(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1//1 2//1 3//1\n")
    assert len(read_obj(path).uv) == len(read_obj(path).uv_triangles) == 0


@pytest.mark.parametrize("text", ["", "hello\n", "v 1 two 3\n", "v 0 0 0\nf a b c\n"])
def test_what_is_no_mesh_is_refused(tmp_path, text):
    path = tmp_path / "a.obj"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_obj(path)
